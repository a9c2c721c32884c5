#!/usr/bin/env bash
# Nodes leave the cluster for good: one that is dead, one that lives, and the one that orders changes, while a client uses a
# volume. What holds replicas or a needed vote is refused. Who was removed says so, stays out, and joins anew when cleared.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 5
volume_make 32M 2
mapfile -t members < <(volume_members n1 "$VOLUME")
mapfile -t free < <(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
keep=${members[0]}

refused "a node with a replica stays" 'holds replicas of vol1' on "$keep" "/nodes/$keep" delete
corosync_has() { grep -q "$(address_of "$2")" "$DIR/nodes/$1/run/corosync.conf"; }
corosync_has_not() { ! corosync_has "$@"; }
node_gone() { ! on "$1" /nodes ls | jq -e --arg n "$2" '.[] | select(.path == "/nodes/" + $n)' >/dev/null; }
voters() { on "$1" /nodes ls | jq -r '.[] | select(.kind == "node") | .path' | wc -l; }

io_start --seconds 60 -- "$keep"
io_under_way

say "-- a dead one"
dead=${free[0]}
tb kill "$dead" power
eventually 15 "$dead is missed" cluster_sees 4 "$keep"
on "$keep" "/nodes/$dead" delete >/dev/null || fail "$dead, which is dead, cannot be removed"
expect "$dead is gone from the tree" node_gone "${members[1]}" "$dead"
eventually 10 "$dead is gone from corosync's list" corosync_has_not "$keep" "$dead"

say "-- one that lives, asked of itself"
live=${free[1]}
on "$live" "/nodes/$live" delete >/dev/null || fail "$live cannot be removed through itself"
eventually 10 "$live is gone from the tree" node_gone "$keep" "$live"
eventually 10 "the others are three" cluster_sees 3 "$keep" "${members[1]}" "${free[2]}"
says_removed() { on "$1" status 2>/dev/null | grep -q 'removed from its cluster'; }
eventually 10 "$live says in its status that it was removed" says_removed "$live"
expect "... and in its log, and what to do" grep -q 'clear its state folder' "$DIR/nodes/$live/log/agent.log"
no_corosync() { [ -z "$(node_pids "$1" corosync)" ]; }
eventually 10 "its corosync has ended" no_corosync "$live"

say "-- the dead one comes back"
power_on() { tb start "$1" >/dev/null 2>&1; }
eventually 15 "$dead has power again" power_on "$dead"
eventually 20 "$dead learns that it was removed" says_removed "$dead"
sleep 2
expect "... and stays out" cluster_sees 3 "$keep"

say "-- cleared, it joins as a new one"
tb kill "$dead" power
rm -rf "${DIR:?}/nodes/$dead/state"
eventually 15 "$dead has power again" power_on "$dead"
eventually 20 "$dead is a member again" cluster_sees 4 "$keep" "$dead"

say "-- the one that orders changes, if it is free to go"
leader=$(prop "$keep" / leader)
if grep -qx "$leader" <<<"$(printf '%s\n' "$dead" "${free[2]}")"; then
    on "$keep" "/nodes/$leader" delete >/dev/null || fail "$leader, which orders changes, cannot be removed"
    eventually 10 "three are left" cluster_sees 3 "$keep"
fi
on "$keep" /volumes create after size=4M replicas=2 >/dev/null || fail "no change is possible after the removals"
ok "changes are still made"
io_stop
io_verified
