#!/usr/bin/env bash
# Who loses power, and in which order it comes back, under I/O. Scenarios 9 (all power lost, all return), 8 and 29 (only nodes that
# are not in sync return: nothing is served, and it is said whom it takes), 27 (restarted one by one), 17 (the new owner dies during
# the failover), 18 (owner and sequencer at once), 26 (a node joins meanwhile), 25 (a node dies while it joins).
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 32M 2
mapfile -t members < <(volume_members n1 "$VOLUME")
witness=$(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
in_sync() { volume_is_in_sync "$witness" "$VOLUME"; }
out() { ! volume_in_sync "$witness" "$VOLUME" | grep -qx "$1"; }
roles() { OWNER=$(volume_owner "$witness" "$VOLUME"); replica=$(printf '%s\n' "${members[@]}" | grep -vx "$OWNER"); }
acknowledges_more() { [ "$(io_writes)" -gt "$1" ]; }
goes_on() { local now; now=$(io_writes); eventually "$1" "I/O goes on" acknowledges_more $((now + 50)); }
all_off() { local node; for node in "$@"; do tb kill "$node" power & done; wait $(jobs -p | grep -vx "$IO_PID"); }
all_on() { local node; for node in "$@"; do tb start "$node" >/dev/null & done; wait $(jobs -p | grep -vx "$IO_PID"); }
agent_gone() { ! agent_runs "$1"; }
not_served() { ! tb exec client -- timeout 3 qemu-io -r -f raw -c 'read 0 4k' "$(url "$1")" >"$OUT/qemu-io" 2>&1; }
eventually 10 "both replicas are in sync" in_sync
roles
io_start --seconds 150 --rate 2000 --drain-ms 60000 -- n1 n2 n3
io_under_way

say "-- 9: all power is lost, all return"
all_off n1 n2 n3
all_on n1 n2 n3
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 20 "both replicas are in sync" in_sync
goes_on 20

say "-- 8, 29: only a stale replica returns"
roles
tb kill "$replica" power
eventually 15 "$replica is out" out "$replica"
goes_on 10
all_off "$OWNER" "$witness"
all_on "$replica" "$witness"
eventually 20 "$replica and $witness are a quorate cluster" cluster_sees 2 "$replica" "$witness"
sleep 1.2 # the initiator says once a second how far it is
before=$(io_writes)
sleep 2.5
expect "nothing is served by the stale replica" [ "$(io_writes)" = "$before" ]
expect "... its node reads nothing either" not_served "$replica"
named=$(on "$witness" "/volumes/$VOLUME" status)
expect "it is said which node it takes" grep -q "$OWNER" <<<"$named"
all_on "$OWNER"
eventually 20 "with $OWNER back both replicas are in sync" in_sync
goes_on 20

say "-- 27: restarted one by one"
for node in n1 n2 n3; do
    kill -TERM "$(agent_pid "$node")"
    eventually 16 "$node has stopped" agent_gone "$node"
    tb start "$node" >/dev/null
    eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
    eventually 20 "both replicas are in sync" in_sync
done
goes_on 10
io_stop
io_verified

say "-- five nodes, three replicas"
tb add >/dev/null
tb add >/dev/null
eventually 20 "five nodes are one cluster" cluster_sees 5 n1 n2 n3 n4 n5
VOLUME=vol2
volume_make 32M 3
mapfile -t members < <(volume_members n1 "$VOLUME")
mapfile -t all < <(nodes_all)
sequencer() { prop "$1" / leader; }
owner_among() { local o; o=$(volume_owner "$1" "$VOLUME") && shift && printf '%s\n' "$@" | grep -qx "$o"; }
# those WORD...: all nodes but these.
those() { printf '%s\n' "${all[@]}" | grep -vxF -f <(printf '%s\n' "$@"); }
all_in_sync() { volume_is_in_sync "$1" "$VOLUME"; }
eventually 15 "all replicas are in sync" all_in_sync n1
io_start --seconds 120 --rate 1500 --drain-ms 60000 -- "${all[@]}"
io_under_way

say "-- 17: the owner dies, and so does the next one, at once"
first=$(volume_owner n1 "$VOLUME")
mapfile -t rest < <(those "$first")
tb kill "$first" power
eventually 10 "there is another owner" owner_among "${rest[0]}" "${rest[@]}"
second=$(volume_owner "${rest[0]}" "$VOLUME")
tb kill "$second" power
mapfile -t rest < <(those "$first" "$second")
eventually 10 "the last replica owns the volume" owner_among "${rest[0]}" "${rest[@]}"
goes_on 10

all_on "$first" "$second"
eventually 20 "both are back" cluster_sees 5 "${all[@]}"
eventually 20 "all replicas are in sync" all_in_sync n1

say "-- 18: owner and sequencer lose power at the same moment"
first=$(volume_owner n1 "$VOLUME")
second=$(sequencer n1)
[ "$first" != "$second" ] || second=$(those "$first" | head -n 1)
mapfile -t rest < <(those "$first" "$second")
all_off "$first" "$second"
eventually 10 "there is another owner" owner_among "${rest[0]}" "${rest[@]}"
goes_on 10
all_on "$first" "$second"
eventually 20 "both are back" cluster_sees 5 "${all[@]}"
eventually 20 "all replicas are in sync" all_in_sync n1

say "-- 26: a node joins during a failover; 25: one dies while it joins"
first=$(volume_owner n1 "$VOLUME")
mapfile -t rest < <(those "$first")
tb kill "$first" power
joined=$(tb add)
eventually 10 "there is another owner" owner_among "${rest[0]}" "${rest[@]}"
eventually 20 "$joined has joined meanwhile" cluster_sees 5 "${rest[@]}" "$joined"
late=$(tb add)
tb kill "$late" power
on "${rest[0]}" /volumes create later size=16M replicas=2 >/dev/null || fail "no change is possible after a node died while it joined"
ok "changes are answered after $late died while it joined"
goes_on 10
all_on "$first" "$late"
eventually 30 "in the end all seven are there" cluster_sees 7 "${all[@]}" "$joined" "$late"
eventually 20 "all replicas are in sync" all_in_sync n1
io_stop
io_verified
quiet_and_equal() { replicas_equal "$VOLUME"; }
eventually 5 "the replicas are equal byte by byte" quiet_and_equal
