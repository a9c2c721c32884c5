#!/usr/bin/env bash
# A volume with volatile caches (cache=write-back) on disks that do lose what was not flushed when the power goes: a replica, then the
# owner loses power under I/O and comes back without its cache (I5); all lose power after a flush; a flush fails (scenario 15, I12).
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3 --faults
for node in n1 n2 n3; do tb fault "$node" 'volatile on=yes'; done
volume_make 64M 2
mapfile -t members < <(volume_members n1 "$VOLUME")
witness=$(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
in_sync() { volume_is_in_sync "$witness" "$VOLUME"; }
out() { ! volume_in_sync "$witness" "$VOLUME" | grep -qx "$1"; }
roles() { OWNER=$(volume_owner "$witness" "$VOLUME"); replica=$(printf '%s\n' "${members[@]}" | grep -vx "$OWNER"); }
acknowledges_more() { [ "$(io_writes)" -gt "$1" ]; }
goes_on() { local now; now=$(io_writes); eventually "$1" "I/O goes on" acknowledges_more $((now + 200)); }
# flush: an initiator's; qemu sends none when it has written nothing.
flush() { tb exec client -- timeout 20 qemu-io -t writeback -f raw -c 'write -P 0x70 63M 4k' -c flush "$(url "$witness")" >"$OUT/qemu-io" 2>&1; }
# client COMMAND [unsafe]: unsafe means without the flush that qemu-io ends with.
client() { tb exec client -- timeout 20 qemu-io -t "${2:-writeback}" -f raw -c "$1" "$(url "$witness")" >"$OUT/qemu-io" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io"; }
on n1 "/volumes/$VOLUME" set cache=write-back >/dev/null || fail "write-back cannot be set"
eventually 10 "both replicas are in sync" in_sync

io_start --seconds 120 --rate 2000 -- n1 n2 n3
io_under_way
for who in replica owner; do
    roles
    [ "$who" = owner ] || OWNER=$replica
    say "-- the power of the $who, $OWNER, goes, and what its cache held"
    goes_on 10
    tb kill "$OWNER" power
    eventually 15 "it is out" out "$OWNER"
    goes_on 10
    tb start "$OWNER" >/dev/null
    eventually 30 "it is back and in sync" in_sync
done
io_stop
io_verified
expect "a flush of the client" flush
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"

say "-- the power of all goes, after a flush"
expect "4 MiB are written" client 'write -P 0x51 8M 4M' unsafe
roles
file=$(replica_file "$replica" "$VOLUME")
first_byte() { [ "$(dd if="$file" bs=1 skip=8388608 count=1 status=none | od -An -tx1 | tr -d ' ')" = "$1" ]; }
not_on_disk() { ! first_byte 51; }
expect "the disks do not have them yet" not_on_disk
expect "a flush of the client" flush
expect "they have them now" first_byte 51
client 'write -P 0x52 40M 1M' unsafe || fail "1 MiB more, not flushed, cannot be written"
for node in n1 n2 n3; do tb kill "$node" power & done
wait
for node in n1 n2 n3; do tb start "$node" >/dev/null & done
wait
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 30 "both replicas are in sync" in_sync
eventually 10 "what was flushed is there" client 'read -P 0x51 8M 4M'
expect "a flush of the client" flush
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"

say "-- 15: a flush fails"
roles
tb fault "$replica" 'volatile on=yes' 'error operations=flush count=1'
expect "1 MiB is written" client 'write -P 0x53 20M 1M' unsafe
expect "a flush of the client succeeds nevertheless" flush
eventually 5 "the replica whose disk could not flush is out" out "$replica"
say "    it stays out until its agent is started anew (I12)"
tb fault "$replica" 'volatile on=yes'
tb kill "$replica" agent
tb start "$replica" >/dev/null
eventually 20 "... and comes back by a resync" in_sync
expect "a flush of the client" flush
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
