#!/usr/bin/env bash
# A volume grows while it serves (scenario 34): initiators see the new size, nothing that is held is lost; a replica that was away
# grows when it comes back; the owner dies between the two phases.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 3
all_in_sync() { [ "$(volume_in_sync n1 "$VOLUME" | wc -l)" = 3 ]; }
eventually 15 "all replicas are in sync" all_in_sync
size_is() { [ "$(prop "$1" "/volumes/$VOLUME" size)" = "$2" ]; }
bytes_seen() { tb exec client -- timeout 30 qemu-img info --output=json "$(url "$1")" 2>/dev/null | jq '."virtual-size"'; }
seen_is() { [ "$(bytes_seen "$1")" = "$2" ]; }
io() { tb exec client -- timeout 60 qemu-io -f raw -c "$2" "$(url "$1")" >"$OUT/qemu-io" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io"; }
replica=$(nodes_on | grep -vx "$OWNER" | head -n 1)
witness=$(nodes_on | grep -vx "$OWNER" | tail -n 1)

io_start --seconds 75 -- "$OWNER" "$replica" "$witness"
io_under_way

say "-- while it serves"
refused "a smaller size" 'smaller' on n1 "/volumes/$VOLUME" set size=32M
on n1 "/volumes/$VOLUME" set size=100M >/dev/null || fail "the size cannot be set"
for node in n1 n2 n3; do eventually 10 "$node says 100M" size_is "$node" 104857600; done
for node in n1 n2 n3; do eventually 10 "initiators see it through $node" seen_is "$node" 104857600; done
expect "what is new can be written" io n1 'write -P 0x22 90M 10M'
expect "... and read through another node" io n2 'read -P 0x22 90M 10M'
expect "... and reads as zeroes where nothing was written" io n3 'read -P 0 70M 8M'
expect "all are still in sync" all_in_sync

say "-- while a replica is away"
tb kill "$replica" power
away() { ! volume_in_sync "$witness" "$VOLUME" | grep -qx "$replica"; }
eventually 15 "$replica is out of the in-sync set" away
on "$witness" "/volumes/$VOLUME" set size=200M >/dev/null || fail "the size cannot be set"
eventually 10 "it grows without it" size_is "$witness" 209715200
expect "the new end can be written" io "$witness" 'write -P 0x33 190M 10M'
power_on() { tb start "$1" >/dev/null 2>&1; }
eventually 15 "$replica has power again" power_on "$replica"
eventually 40 "it grows, and is synced" all_in_sync

say "-- while the owner dies"
owner=$(volume_owner "$witness" "$VOLUME")
other=$(nodes_on | grep -vx "$owner" | head -n 1)
on "$other" "/volumes/$VOLUME" set size=300M >/dev/null || fail "the size cannot be set"
tb kill "$owner" agent
eventually 30 "the new size, whoever owns it" size_is "$other" 314572800
eventually 20 "initiators see it" seen_is "$other" 314572800
expect "the new end can be written" io "$other" 'write -P 0x44 290M 10M'
tb start "$owner" >/dev/null 2>&1 || true
eventually 60 "all are in sync again" all_in_sync
io_stop
io_verified
replicas_are_equal() {
    local -a sums
    mapfile -t sums < <(for node in n1 n2 n3; do sha256sum <"$(replica_file "$node" "$VOLUME")"; done | sort -u)
    [ "${#sums[@]}" = 1 ]
}
eventually 20 "the three replicas are equal, byte by byte" replicas_are_equal
