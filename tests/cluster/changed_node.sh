#!/usr/bin/env bash
# A node is set up anew under its old name and address without having been removed: it joins as a new one, and its former self
# can be removed. Another comes back with another address: the cluster takes it over. All the while a client writes.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 4
volume_make 32M 2
mapfile -t members < <(volume_members n1 "$VOLUME")
mapfile -t free < <(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
keep=${members[0]}
io_start --seconds 60 -- "$keep"
io_under_way
power_on() { tb start "$1" >/dev/null 2>&1; }

say "-- set up anew"
wiped=${free[0]}
tb kill "$wiped" power
eventually 15 "$wiped is missed" cluster_sees 3 "$keep"
rm -rf "${DIR:?}/nodes/$wiped/state"
eventually 15 "$wiped has power again, and an empty state" power_on "$wiped"
eventually 30 "it is a member again" cluster_sees 4 "$keep" "$wiped"
expect "five nodes are known: its former self is one" same 5 "$(on "$keep" /nodes ls | jq '[.[] | select(.kind == "node")] | length')"
on "$keep" "/nodes/$wiped" delete >/dev/null || fail "the former self of $wiped cannot be removed"
expect "four are left" same 4 "$(on "$keep" /nodes ls | jq '[.[] | select(.kind == "node")] | length')"
eventually 10 "and are online" cluster_sees 4 "$keep" "$wiped"

say "-- another address"
moved=${free[1]}
mapfile -t pids < <(node_pids "$moved" "${DIRECTORD##*/}"; node_pids "$moved" corosync)
pids_kill "${pids[@]}"
old=$(address_of "$moved") new=${old%.*}.77
tb exec "$moved" -- ip address del "$old/24" dev eth0
tb exec "$moved" -- ip address add "$new/24" brd + dev eth0
printf '%s\n' "$new" >"$DIR/nodes/$moved/address"
eventually 15 "the agent of $moved runs again" power_on "$moved"
has_address() { same "$new" "$(prop "$keep" "/nodes/$moved" address)" >/dev/null; }
eventually 20 "the cluster knows its address" has_address
eventually 20 "it is a member again" cluster_sees 4 "$keep" "$moved"
io_stop
io_verified
