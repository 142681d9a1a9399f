# Without cert-manager: the plugin makes its own certificates, and the operator takes them.
# shellcheck shell=bash disable=SC2154

from_nothing() {
    kubectl -n "$OPERATOR_NS" delete deployment/barman-cloud service/barman-cloud --ignore-not-found >/dev/null
    kubectl -n "$OPERATOR_NS" delete secret barman-cloud-client-tls barman-cloud-server-tls --ignore-not-found >/dev/null
    kubectl -n "$OPERATOR_NS" delete events --field-selector involvedObject.name=barman-cloud >/dev/null
    prepare
}
its_own() {
    local name
    for name in client server; do
        kubectl -n "$OPERATOR_NS" get secret "barman-cloud-$name-tls" -o 'jsonpath={.data.tls\.crt}' | base64 -d >"$STATE/$name.crt"
        openssl x509 -in "$STATE/$name.crt" -noout -checkend 86400
        note "$name: $(openssl x509 -in "$STATE/$name.crt" -noout -subject -enddate | paste -sd' ')"
    done
    openssl x509 -in "$STATE/server.crt" -noout -ext subjectAltName | grep -q 'DNS:barman-cloud'
}

if [ "$PLUGIN" = reference ]; then
    say '  plugin-barman-cloud needs cert-manager for this: not run'
    exit 0
fi
step 'install the plugin where no certificates are' from_nothing
step 'it made both certificates, and the operator registered it' its_own
