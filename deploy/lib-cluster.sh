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

# prop NODE PATH PROPERTY: its value, as text; fails when there is no such object or property.
prop() { on "$1" "$2" get 2>/dev/null | jq -er --arg p "$3" 'first(.. | .properties? | objects | .[$p] | values)'; }

# nodes_on: the nodes whose agent runs.
nodes_on() {
    local node
    for node in $(nodes_all); do ! agent_runs "$node" || printf '%s\n' "$node"; done
}

address_of() { cat "$DIR/nodes/$1/address"; }

# --- the cluster ----------------------------------------------------------------------------------------------------

# node_sees NODE COUNT: the agent of NODE is in a quorate view and sees COUNT live members.
node_sees() {
    local live
    [ "$(prop "$1" / quorate)" = yes ] || return 1
    live=$(on "$1" /nodes ls --full 2>/dev/null | jq '[.. | .properties? | objects | select(.state == "online")] | length') || return 1
    [ "$live" = "$2" ]
}

# cluster_sees COUNT NODE...: all of them say so.
cluster_sees() {
    local count=$1 node
    shift
    for node in "$@"; do node_sees "$node" "$count" || return 1; done
}

node_not_quorate() { [ "$(prop "$1" / quorate)" = no ]; }

# --- volumes --------------------------------------------------------------------------------------------------------

volume_owner() { prop "$1" "/volumes/$2" owner; }
volume_epoch() { prop "$1" "/volumes/$2" epoch; }
# volume_members NODE VOLUME: the nodes with a replica; volume_in_sync: those in sync. One line each, sorted.
volume_members() { on "$1" "/volumes/$2/replicas" ls 2>/dev/null | jq -r '.. | .path? | strings' | sed -n 's|.*/replicas/||p' | sort; }
volume_in_sync() {
    local member
    for member in $(volume_members "$1" "$2"); do
        [ "$(prop "$1" "/volumes/$2/replicas/$member" state)" != in-sync ] || printf '%s\n' "$member"
    done
}
volume_is_in_sync() { [ "$(volume_in_sync "$1" "$2")" = "$(volume_members "$1" "$2")" ]; }
volume_owner_is_not() { local o; o=$(volume_owner "$1" "$2") && [ "$o" != "$3" ]; }
