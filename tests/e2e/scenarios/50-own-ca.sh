# A store behind TLS whose certificate an own CA signed (endpointCA): archive, back up, recover.
# shellcheck shell=bash disable=SC2154

TLS_PORT=9443 TLS_HOST_PORT=${E2E_TLS_HOST_PORT:-19443}
tls_dir=$STATE/tls

tls_store() {
    mkdir -p "$tls_dir/certs" "$tls_dir/data/$S3_BUCKET"
    cd "$tls_dir"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj '/CN=a CA of our own' \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout certs/private.key -out server.csr -subj /CN=minio-tls
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:minio-tls.default,IP:%s\n' "$NODE_IP" >server.ext
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out certs/public.crt
    MINIO_ROOT_USER=$S3_USER MINIO_ROOT_PASSWORD=$S3_PASS setsid nohup "$BIN/minio" server "$tls_dir/data" --certs-dir "$tls_dir/certs" \
        --address "$NODE_IP:$TLS_HOST_PORT" --console-address 127.0.0.1:0 --quiet >"$tls_dir/log" 2>&1 </dev/null &
    echo $! >"$tls_dir/pid"
    until_true 30 'the store behind TLS' curl -sSf --cacert ca.crt "https://$NODE_IP:$TLS_HOST_PORT/minio/health/live"
    kubectl apply -f - >/dev/null <<Y
apiVersion: v1
kind: Service
metadata: {name: minio-tls, namespace: default}
spec: {ports: [{name: s3, port: $TLS_PORT, targetPort: $TLS_HOST_PORT, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: minio-tls-1, namespace: default, labels: {kubernetes.io/service-name: minio-tls}}
addressType: IPv4
ports: [{name: s3, port: $TLS_HOST_PORT, protocol: TCP}]
endpoints: [{addresses: ["$NODE_IP"]}]
Y
}
tls_down() {
    [ ! -e "$tls_dir/pid" ] || kill "$(cat "$tls_dir/pid")" 2>/dev/null
    kubectl -n default delete service/minio-tls endpointslice/minio-tls-1 --ignore-not-found >/dev/null 2>&1
}
trap tls_down EXIT

create() {
    k create secret generic own-ca --from-file=ca.crt="$tls_dir/ca.crt" >/dev/null
    STORE_URL=https://minio-tls.default:$TLS_PORT STORE_CONFIGURATION='    endpointCA: {name: own-ca, key: ca.crt}' object_store store
    cluster tls 1 "$(archives_to store)"
    healthy tls
    archiving tls
    sql tls 'create table numbers as select generate_series(1, 100) as n'
}
back_up() {
    backup one tls
    backup_ends one
    archive_now tls
    delete_cluster tls
}
recover() {
    cluster again 1 "$(comes_from store tls)" "$(recovers '')"
    healthy again 400
    equal rows 100 "$(sql again 'select count(*) from numbers')"
}

step 'a store behind TLS with a CA of its own' tls_store
step 'install the plugin' prepare
step 'a cluster archives to it' create
step 'a backup, then the cluster is deleted' back_up
step 'recovery: 100 rows' recover
