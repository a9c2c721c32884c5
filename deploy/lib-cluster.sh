# shellcheck shell=bash
# Asking a cluster that runs in a testbed. Sourced after lib.sh by the quickstart and the cluster tests.
# shellcheck source=deploy/lib-testbed.sh
. "$ROOT/deploy/lib-testbed.sh"

DIRECTOR=$BUILD/director/shell/director
# shellcheck disable=SC2034 # used by the io_ functions
IOVERIFY=$BUILD/tests/cluster/ioverify

tb() { "$ROOT/deploy/testbed" --name "$NAME" "$@"; }

# cluster_use NAME: the testbed that the functions below speak of; it need not be up yet.
cluster_use() {
    NAME=$1 DIR=/var/tmp/director-testbed/$1
    # shellcheck disable=SC2034 # lib-testbed.sh uses it
    DIRECTORD=${DIRECTORD:-$BUILD/agent/directord}
}

# on NODE WORDS...: the shell against that node's agent, as a program uses it.
on() {
    local node=$1
    shift
    timeout 40 "$DIRECTOR" --json --socket "$DIR/nodes/$node/run/director.sock" "$@"
}

# prop NODE PATH PROPERTY: its value, as text (sizes in bytes, "true" and "false"); fails when it is not there or not known.
prop() { on "$1" "$2" get 2>/dev/null | jq -er --arg p "$3" '.properties[$p] | values | tostring'; }

# nodes_on: the nodes whose agent runs.
nodes_on() {
    local node
    for node in $(nodes_all); do ! agent_runs "$node" || printf '%s\n' "$node"; done
}

address_of() { cat "$DIR/nodes/$1/address"; }

# --- the cluster ----------------------------------------------------------------------------------------------------

# node_sees NODE COUNT: the agent of NODE is in a quorate view, with COUNT nodes that are online.
node_sees() { on "$1" / get 2>/dev/null | jq -e --argjson n "$2" '.properties | .quorate and .nodes_online == $n' >/dev/null; }

# cluster_sees COUNT NODE...: all of them say so.
cluster_sees() {
    local count=$1 node
    shift
    for node in "$@"; do node_sees "$node" "$count" || return 1; done
}

node_not_quorate() { [ "$(prop "$1" / quorate)" = false ]; }

# --- volumes --------------------------------------------------------------------------------------------------------

volume_owner() { prop "$1" "/volumes/$2" owner; }
volume_epoch() { prop "$1" "/volumes/$2" epoch; }
# The first word of "iqn... lun 0".
volume_iqn() { prop "$1" "/volumes/$2" export | awk 'NF { print $1; found = 1 } END { exit !found }'; }
# volume_members NODE VOLUME: the nodes with a replica; volume_in_sync: those in sync. One line each, sorted.
volume_members() { on "$1" "/volumes/$2/replicas" ls 2>/dev/null | jq -r '.[] | select(.kind == "replica") | .path | sub(".*/"; "")' | sort; }
volume_in_sync() { prop "$1" "/volumes/$2" in_sync | sed 's/[, ][, ]*/\n/g' | sort; }
volume_is_in_sync() {
    local members
    members=$(volume_members "$1" "$2") && [ -n "$members" ] && [ "$(volume_in_sync "$1" "$2")" = "$members" ]
}
volume_owner_is_not() { local o; o=$(volume_owner "$1" "$2") && [ "$o" != "$3" ]; }

# volume_resynced NODE VOLUME: bytes that its owner has copied to returned replicas since it opened the volume.
volume_resynced() { prop "$1" "/volumes/$2" resynced_bytes; }
# volume_progress NODE VOLUME: what the owner says of a resync, for a screen.
volume_progress() { on "$1" "/volumes/$2" status 2>/dev/null | jq -r '.lines[0] // ""' || true; }

# replica_file NODE VOLUME: the file with the data of the volume's replica on NODE.
replica_file() {
    local uuid
    uuid=$(prop n1 "/volumes/$2" uuid) || return 1
    find "$DIR/nodes/$1/state" -type f -name "$uuid.data" | head -n 1
}

# replicas_equal VOLUME: byte by byte. Nothing may be writing.
replicas_equal() {
    local first='' node path
    for node in $(volume_members n1 "$1"); do
        path=$(replica_file "$node" "$1") || return 1
        [ -n "$path" ] || { say "    no replica file of $1 on $node"; return 1; }
        if [ -z "$first" ]; then first=$path; else cmp "$first" "$path" || return 1; fi
    done
    [ -n "$first" ]
}

# --- an initiator that checks every block ---------------------------------------------------------------------------
# It runs on the client, in the background; OUT is a directory for what it says.

url() { printf 'iscsi://%s:3260/%s/0' "$(address_of "$1")" "$IQN"; }
# portal_serves NODE: an initiator can log in there and finds the unit ready.
portal_serves() { tb exec client -- timeout 5 iscsi-readcapacity16 "$(url "$1")"; }

# io_start [WORDS OF ioverify ...] -- NODE...: I/O through the portals of these nodes, until its time is over or io_stop.
io_start() {
    local words=() node
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    for node in "$@"; do words+=(--portal "$(address_of "$node")"); done
    rm -f "$OUT/io.stop" "$OUT/io.json"
    tb exec client -- "$IOVERIFY" --target "$IQN" --json --until-file "$OUT/io.stop" "${words[@]}" \
        >"$OUT/io.json" 2>"$OUT/io.log" </dev/null &
    IO_PID=$!
}
io_writes() { grep -oE '[0-9]+ writes acknowledged' "$OUT/io.log" | tail -n 1 | cut -d ' ' -f 1; }
_io_writes_some() { [ "$(io_writes)" -gt 0 ]; }
# io_under_way: waits until writes are acknowledged.
io_under_way() { wait_for 15 _io_writes_some; }
io_stop() { : >"$OUT/io.stop"; }
io_last_words() { tail -n 1 "$OUT/io.log" 2>/dev/null || true; }

# io_finish: waits for its end and reads what it found into IO_...; fails unless every acknowledged block is intact.
io_finish() {
    local rc=0 words
    wait "$IO_PID" || rc=$?
    words=$(jq -r '[.writes_acknowledged, .reads, .lost, .torn, .stale, .misplaced, .errors, .longest_gap_ms, .retries, .path_switches] | join(" ")' \
        "$OUT/io.json" 2>/dev/null) || return 1
    # shellcheck disable=SC2034 # read by those who call
    read -r IO_WRITES IO_READS IO_LOST IO_TORN IO_STALE IO_MISPLACED IO_ERRORS IO_GAP_MS IO_RETRIES IO_SWITCHES <<<"$words"
    [ "$rc" = 0 ]
}
