#!/usr/bin/env bash
# A node whose corosync cannot start says so; killed while it forms its cluster, it goes on with that at the next start. A
# taken port 3260 costs it its portal only for as long.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 1
stop_all() {
    local -a pids
    mapfile -t pids < <(node_pids n1 "${DIRECTORD##*/}"; node_pids n1 corosync)
    pids_kill "${pids[@]}"
}
stop_all
rm -rf "${DIR:?}/nodes/n1/state"
corosync=$(command -v corosync)
tb exec n1 -- mount --bind /bin/false "$corosync"
: >"$DIR/nodes/n1/log/agent.log"
tb start n1 >/dev/null
forming() { grep -q 'forming a new cluster' "$DIR/nodes/n1/log/agent.log"; }
eventually 10 "it begins to form" forming
says_corosync() { on n1 status 2>/dev/null | grep -q 'corosync does not run here'; }
eventually 10 "its status says that corosync does not run" says_corosync
stop_all
tb exec n1 -- umount "$corosync"
tb exec n1 -- socat TCP-LISTEN:3260,bind="$(address_of n1)",reuseaddr,fork /dev/null &
sleep 0.3
tb start n1 >/dev/null
eventually 15 "it is a cluster of one after all" cluster_sees 1 n1
expect "... by going on" grep -q 'going on where an earlier start was interrupted' "$DIR/nodes/n1/log/agent.log"
makes_volume() { on n1 /volumes create "$VOLUME" size=4M replicas=1 >/dev/null 2>&1; }
eventually 5 "it makes a volume" makes_volume
on n1 "/volumes/$VOLUME" export >/dev/null || fail "it exports no volume"
IQN=$(volume_iqn n1 "$VOLUME")
portal_taken() { grep -q 'tried again' "$DIR/nodes/n1/log/agent.log"; }
eventually 5 "the portal's port is taken" portal_taken
mapfile -t pids < <(node_pids n1 socat)
pids_kill "${pids[@]}"
eventually 10 "the portal serves when it is free" portal_serves n1
