# Puts a plugin into the bed: ours (deploy/ with its image replaced) or the reference (its own release manifest).
# Sourced by run.sh and measure.sh after lib.sh. Not here: what is then tried with it.
# shellcheck shell=bash disable=SC2154

OPERATOR_NS=cnpg-system
tree=$(cd "$here/../.." && pwd)
PLUGIN_BINARY=${PLUGIN_BINARY:-${CARGO_TARGET_DIR:-$tree/target}/x86_64-unknown-linux-gnu/release/cellarman-plugin}

# An image with one static program as /manager, and what an image from scratch lacks: CA certificates and a /tmp.
# Prints its name, whose tag is the program's checksum, so that pods always take the new content.
image_of() { # NAME PROGRAM UID:GID
    local root image
    image=bed.local/$1:$(sha256sum <"$2" | cut -c1-12)
    if ! $CTR images ls -q | grep -qx "$image"; then
        root=$(mktemp -d "$STATE/image.XXXXXX")
        chmod 755 "$root"
        mkdir -p "$root/etc/ssl/certs" "$root/tmp"
        chmod 1777 "$root/tmp"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
        install -m755 "$2" "$root/manager"
        "$BED_DIR/mkimage.sh" "$image" "$root" "{\"Entrypoint\":[\"/manager\"],\"User\":\"$3\"}" >&2
        import_image "$image"
    fi
    echo "$image"
}
import_image() { # NAME: the archive that mkimage.sh left, into containerd
    local archive
    archive=$IMG/$(echo "$1" | tr '/:' '__').tar
    $CTR images import "$archive" >&2
    rm -f "$archive"
}

# Names of the images in use, one line for the operator part and one for the sidecar.
plugin_images() { # cellarman|reference
    local made=$STATE/images-$1
    if [ ! -e "$made" ]; then
        if [ "$1" = reference ]; then
            reference_images >"$made.new"
        elif [ -n "${PLUGIN_IMAGE:-}" ]; then
            printf '%s\n%s\n' "$PLUGIN_IMAGE" "$PLUGIN_IMAGE" >"$made.new"
        else
            [ -x "$PLUGIN_BINARY" ] || fail "$PLUGIN_BINARY is not there: build it with deploy/build-static.sh"
            strip -o "$STATE/cellarman-plugin" "$PLUGIN_BINARY"
            image_of cellarman-plugin "$STATE/cellarman-plugin" 26:26 >"$made.new"
            cat "$made.new" "$made.new" >"$made.both"
            mv "$made.both" "$made.new"
        fi
        mv "$made.new" "$made"
    fi
    cat "$made"
}
operator_image() { plugin_images "$1" | sed -n 1p; }
sidecar_image() { plugin_images "$1" | sed -n 2p; }

reference_images() {
    local built program root sidecar
    built=$("$here/reference/build.sh")
    program=$(sed -n 1p <<<"$built") root=$(sed -n 2p <<<"$built")
    image_of barman-plugin "$program" 10001:10001
    sidecar=bed.local/barman-sidecar:$(sha256sum "$program" | cut -c1-12)-${root##*-}
    if ! $CTR images ls -q | grep -qx "$sidecar"; then
        install -m755 "$program" "$root/manager"
        "$BED_DIR/mkimage.sh" "$sidecar" "$root" '{"Entrypoint":["/manager"],"User":"26:26","Env":["PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin","LANG=C.UTF-8"]}' >&2
        import_image "$sidecar"
    fi
    echo "$sidecar"
}
reference_manifest() {
    local dir
    dir=$(cd "$BED" && go mod download -json github.com/cloudnative-pg/plugin-barman-cloud@v0.14.0 | jq -r .Dir)
    # cert-manager is not in the bed: its objects go, the Secrets that it would make are there already.
    awk -v RS='---\n' -v ORS='---\n' '!/apiVersion: cert-manager.io/' "$dir/manifest.yaml" |
        awk -v image="$(sidecar_image reference)" '
            /^  SIDECAR_IMAGE: \|/ { printf "  SIDECAR_IMAGE: "; printf "%s", image | "base64 -w0"; close("base64 -w0"); print ""; inside = 1; next }
            inside && /^    / { next }
            { inside = 0; print }' |
        sed "s#image: ghcr.io/.*#image: $(operator_image reference)#"
}
cellarman_manifest() { # MANIFESTS: which of deploy/manifests
    kubectl kustomize "$tree/deploy/manifests/${MANIFESTS:-default}" |
        awk -v image="$(sidecar_image cellarman)" '
            /^  SIDECAR_IMAGE:/ { printf "  SIDECAR_IMAGE: "; printf "%s", image | "base64 -w0"; close("base64 -w0"); print ""; inside = /[|>]/; next }
            inside && /^    / { next }
            { inside = 0; print }' |
        sed "s#image: cellarman-plugin:.*#image: $(operator_image cellarman)#"
}

# install_plugin PLUGIN: applied, rolled out, and registered with the operator.
install_plugin() {
    local plugin=$1 image
    # Ours makes its certificates when there are none; the reference needs them made.
    [ "$plugin" = cellarman ] || kubectl -n "$OPERATOR_NS" get secret barman-cloud-client-tls barman-cloud-server-tls >/dev/null 2>&1 ||
        "$BED_DIR/70-plugin-certs.sh"
    image=$(operator_image "$plugin")
    "${plugin}_manifest" >"$STATE/$plugin.yaml"
    kubectl apply --server-side --force-conflicts -f "$STATE/$plugin.yaml" >/dev/null
    kubectl -n "$OPERATOR_NS" rollout status deploy/barman-cloud --timeout=120s >/dev/null
    until_true 60 'the end of older pods' one_image "$image"
    until_true 60 'its registration with the operator' registered
    note "$plugin: $image $(sidecar_image "$plugin")"
}
# The operator says so by an Event on the Service, which stays for an hour: a plugin that is put in another's place may
# be called registered before it is, and the first Cluster tells.
registered() { [ -n "$(kubectl -n "$OPERATOR_NS" get events --field-selector involvedObject.name=barman-cloud,reason=PluginRegistered -o name)" ]; }
one_image() { [ "$(kubectl -n "$OPERATOR_NS" get pods -l app=barman-cloud -o jsonpath='{.items[*].spec.containers[0].image}' | tr ' ' '\n' | sort -u)" = "$1" ]; }

# kubectl's plugin, from the module that the bed built the operator from.
build_kubectl_cnpg() {
    [ -e "$BIN/kubectl-cnpg" ] || (cd "$SRC/cnpg" && go build -mod=mod -trimpath -ldflags '-s -w' -o "$BIN/kubectl-cnpg" github.com/cloudnative-pg/cloudnative-pg/cmd/kubectl-cnpg)
}
clear_namespace() {
    kubectl delete namespace "$NS" --ignore-not-found --wait=true --timeout=180s >/dev/null 2>&1
}
# A namespace afresh, with the credentials of the bucket and the plugin installed.
prepare() {
    install_plugin "$PLUGIN"
    clear_namespace
    namespace "$NS"
}
