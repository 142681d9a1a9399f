# What every scenario uses: steps with their wall time, waiting for conditions, SQL, the object store, manifests.
# Sourced by run.sh and measure.sh, which set the bed's environment (env.sh of the bed) first.
# Not here: what is checked; that is in scenarios/.
# shellcheck shell=bash disable=SC2154

NS=${E2E_NAMESPACE:-e2e}
RUN_ID=${E2E_RUN_ID:-$(date -u +%Y%m%d%H%M%S)}
PLUGIN_NAME=barman-cloud.cloudnative-pg.io
STATE=${E2E_STATE:-$(mktemp -d)}
PG_IMAGE=$(cat "$IMG/postgres-$PG_MAJOR.ref")
mkdir -p "$STATE"

say() { printf '%s %s\n' "$(date -u +%T)" "$*"; }
k() { kubectl -n "$NS" "$@"; }
# Values that outlive a step, which runs in a process of its own.
remember() { printf '%s' "$2" >"$STATE/$1"; }
recall() { cat "$STATE/$1"; }
fail() {
    printf 'not so: %s\n' "$*" >&2
    return 1
}
# equal WHAT EXPECTED FOUND
equal() { [ "$2" = "$3" ] || fail "$1 is '$3', expected '$2'"; }
not_empty() { [ -n "$2" ] && [ "$2" != null ] || fail "$1 is empty"; }

# step WHAT COMMAND...: the command in a subshell that stops at its first failure. One line with the wall time; after a
# failure what it said, and the scenario ends.
step() {
    local what=$1 begin end code
    shift
    begin=$(date +%s%N)
    (
        set -euo pipefail
        shopt -s inherit_errexit
        "$@"
    ) >"$STATE/step.log" 2>&1
    code=$?
    end=$(date +%s%N)
    if [ "$code" = 0 ]; then
        printf '  ok   %7.1f s  %s\n' "$(seconds "$begin" "$end")" "$what"
        sed -n 's/^note: /                   /p' "$STATE/step.log"
        return 0
    fi
    printf '  FAIL %7.1f s  %s\n' "$(seconds "$begin" "$end")" "$what"
    tail -25 "$STATE/step.log" | sed 's/^/       | /'
    exit 1
}
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }
# A figure or a fact worth a line below its step.
note() { printf 'note: %s\n' "$*"; }

# until_true SECONDS WHAT COMMAND...: polls until the command succeeds; its last words when it never did.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2 said
    shift 2
    while :; do
        if said=$("$@" 2>&1); then return 0; fi
        if [ $SECONDS -ge "$deadline" ]; then
            printf 'waited in vain for %s; last answer: %s\n' "$what" "$said" >&2
            return 1
        fi
        sleep 0.3
    done
}
is() { [ "$("${@:2}")" = "$1" ] || fail "expected '$1', found '$("${@:2}" 2>&1)'"; }
field() { k get "$1" -o "jsonpath={$2}"; }
field_is() { [ "$(field "$1" "$2")" = "$3" ] || fail "$1 $2 is '$(field "$1" "$2")'"; }
gone() { [ -z "$(k get "$1" -o name --ignore-not-found)" ] || fail "$1 is still there"; }

# --- the object store: S3 by curl, which signs ---------------------------------------------------
S3_URL=http://$NODE_IP:$S3_HOST_PORT/$S3_BUCKET
s3() { curl -sSf -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:us-east-1:s3 --user "$S3_USER:$S3_PASS" "$@"; }
s3_get() { s3 "$S3_URL/$1"; }
s3_put() { s3 -X PUT -H 'Content-Type: application/octet-stream' --data-binary @- "$S3_URL/$1" >/dev/null; }
s3_list() { s3_pages "$1" | sed -n 's/^Key>//p'; } # PREFIX: the keys below it
s3_bytes() { s3_pages "$1" | sed -n 's/^Size>//p' | awk '{ s += $1 } END { printf "%d", s }'; }
s3_pages() { # PREFIX: what the listing says of each object
    local token='' page
    while :; do
        # curl signs the query as it is, so it must be in order and encoded here.
        page=$(s3 "$S3_URL?${token:+continuation-token=$(jq -rn --arg t "$token" '$t | @uri')&}list-type=2&prefix=$(jq -rn --arg p "$1" '$p | @uri')")
        grep -oE '<(Key|Size)>[^<]*' <<<"$page" | tr -d '<' || true
        token=$(grep -oE '<NextContinuationToken>[^<]*' <<<"$page" | sed 's/<NextContinuationToken>//' || true)
        [ -n "$token" ] || return 0
    done
}
# Segments in the archive, each timeline's one after the other without a hole. PREFIX: up to the server's name.
no_holes_below() {
    local name timeline number last_timeline='' last=0 count=0
    while read -r name; do
        timeline=${name:0:8} number=$((16#${name:8:8} * 256 + 16#${name:16:8}))
        [ "$timeline" != "$last_timeline" ] || [ $number = $((last + 1)) ] || fail "the archive has a hole before $name" || return 1
        last_timeline=$timeline last=$number count=$((count + 1))
    done < <(s3_list "$1/wals/" | sed -E 's#.*/##; s#\..*##' | grep -E '^[0-9A-F]{24}$' | sort -u)
    note "$count segments, no hole"
}
store_up() { "$BED_DIR/51-up.sh" >/dev/null 2>&1 && until_true 30 'the object store' curl -sSf "http://$NODE_IP:$S3_HOST_PORT/minio/health/live"; }
store_down() {
    local pid
    pid=$(cat "$RUN/minio.pid")
    kill -9 "$pid"
    until_true 10 'the end of the object store' bash -c "! kill -0 $pid 2>/dev/null"
}

# --- manifests ---------------------------------------------------------------------------------------
namespace() { # NAME: with the credentials of the bucket
    kubectl create namespace "$1" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    kubectl -n "$1" create secret generic s3 --from-literal=user="$S3_USER" --from-literal=pass="$S3_PASS" --dry-run=client -o yaml |
        kubectl apply -f - >/dev/null
}
# object_store NAME [SPEC LINE...]: further lines of its spec. STORE_PATH and STORE_URL may be set for it.
object_store() {
    local name=$1
    shift
    {
        cat <<Y
apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata: {name: $name, namespace: $NS}
spec:
  configuration:
    destinationPath: s3://$S3_BUCKET/${STORE_PATH:-$RUN_ID/$name}
    endpointURL: ${STORE_URL:-http://minio.default:$S3_PORT}
    s3Credentials:
      accessKeyId: {name: s3, key: user}
      secretAccessKey: {name: s3, key: pass}
    wal: {compression: gzip, maxParallel: ${STORE_PARALLEL:-8}}
${STORE_CONFIGURATION:-}
Y
        printf '  %s\n' "$@"
    } | k apply -f - >/dev/null
}
# cluster NAME INSTANCES [SPEC LINE...]
cluster() {
    local name=$1 instances=$2
    shift 2
    {
        cat <<Y
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: $name
  namespace: $NS
  annotations: {${CLUSTER_ANNOTATIONS:-}}
spec:
  instances: $instances
  imageName: $PG_IMAGE
  imagePullPolicy: IfNotPresent
  storage: {size: 2Gi}
  stopDelay: 60
  switchoverDelay: 60
  postgresql:
    parameters: {max_wal_size: 512MB, shared_buffers: 64MB, archive_timeout: ${ARCHIVE_TIMEOUT:-5min}, log_checkpoints: 'off'}
Y
        printf '  %s\n' "$@"
    } >"$STATE/cluster-$name.yaml"
    k apply -f "$STATE/cluster-$name.yaml" >/dev/null
}
# Lines of a Cluster's spec: archiving to a store; and where a new cluster comes from.
archives_to() { # STORE [SERVER]
    printf 'plugins: [{name: %s, isWALArchiver: true, parameters: {barmanObjectName: %s%s}}]' "$PLUGIN_NAME" "$1" "${2:+, serverName: $2}"
}
comes_from() { # STORE SERVER
    printf 'externalClusters: [{name: origin, plugin: {name: %s, parameters: {barmanObjectName: %s, serverName: %s}}}]' "$PLUGIN_NAME" "$1" "$2"
}
recovers() { # [TARGET FIELDS]: a flow mapping's inside
    printf 'bootstrap: {recovery: {source: origin%s}}' "$(flow recoveryTarget "${1:-}")"
}
flow() { [ -z "$2" ] || printf ', %s: {%s}' "$1" "$2"; }
# backup NAME CLUSTER [TARGET [PARAMETERS]]
backup() {
    k apply -f - >/dev/null <<Y
apiVersion: postgresql.cnpg.io/v1
kind: Backup
metadata: {name: $1, namespace: $NS}
spec:
  cluster: {name: $2}
  method: plugin
  target: ${3:-primary}
  pluginConfiguration: {name: $PLUGIN_NAME$(flow parameters "${4:-}")}
Y
}
backup_ends() { # NAME [SECONDS]: completed, or what failed
    until_true "${2:-180}" "the end of backup $1" backup_is_over "$1"
    field_is "backup/$1" .status.phase completed || {
        field "backup/$1" .status.error
        return 1
    }
}
backup_is_over() { case $(field "backup/$1" .status.phase) in completed | failed) ;; *) return 1 ;; esac; }

# --- clusters ------------------------------------------------------------------------------------
healthy() { # CLUSTER [SECONDS]: all instances ready, as the operator sees it
    until_true "${2:-240}" "cluster $1" healthy_now "$1"
}
healthy_now() {
    local state
    state=$(k get "cluster/$1" -o json | jq -r '"\(.spec.instances) \(.status.readyInstances) \(.status.phase)"')
    [ "${state%% Cluster in healthy state}" != "$state" ] && [ "$(cut -d' ' -f1 <<<"$state")" = "$(cut -d' ' -f2 <<<"$state")" ] || fail "$state $(field "cluster/$1" .status.phaseReason)"
}
archiving() { # CLUSTER [SECONDS]
    until_true "${2:-120}" "archiving of $1" condition "cluster/$1" ContinuousArchiving True
}
condition() { # OBJECT TYPE STATUS
    field_is "$1" ".status.conditions[?(@.type==\"$2\")].status" "$3" || fail "$(field "$1" ".status.conditions[?(@.type==\"$2\")].message")"
}
primary() { field "cluster/$1" .status.currentPrimary; }
sql() { # CLUSTER STATEMENT [POD]: on the primary, unless a pod is named
    k exec "${3:-$(primary "$1")}" -c postgres -- psql -qAtX -v ON_ERROR_STOP=1 -d app -c "$2"
}
# Ends the current segment, and waits until it is in the archive.
archive_now() { # CLUSTER [SECONDS]
    local wal
    wal=$(sql "$1" 'select pg_walfile_name(pg_switch_wal())' | tail -1)
    until_true "${2:-120}" "the archiving of $wal" archived "$1" "$wal"
}
archived() { [ "$(sql "$1" "select last_archived_wal >= '$2' from pg_stat_archiver")" = t ]; }
delete_cluster() {
    k delete "cluster/$1" --wait=true --timeout=120s >/dev/null
    until_true 120 "the end of $1's pods" no_pods "$1"
}
no_pods() { [ -z "$(k get pods,pvc -l "cnpg.io/cluster=$1" -o name)" ]; }

# --- the sidecar -------------------------------------------------------------------------------------
SIDECAR=plugin-barman-cloud
sidecar_id() { k get "pod/$1" -o json | jq -r ".status.initContainerStatuses[]? | select(.name==\"$SIDECAR\") | .containerID" | sed 's#.*//##'; }
kill_sidecar() { $CTR tasks kill -s SIGKILL "$(sidecar_id "$1")"; }
sidecar_runs() { [ "$(k get "pod/$1" -o json | jq -r ".status.initContainerStatuses[]? | select(.name==\"$SIDECAR\") | .started")" = true ]; }
