#!/usr/bin/env bash
# Disks that fail under I/O, one after another in one cluster's life; the initiator judges all of it. Scenarios 10 (a write error
# takes a replica out, and it comes back), 11 (a read error is answered from the other replica), 31 (a slow disk and one that hangs),
# 15 (a sync that fails: of the replica's metadata, of the node's state), 12 and 13 (metadata damaged while the node is off).
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3 --faults
owner_is() { [ "$(volume_owner "$witness" "$VOLUME")" = "$1" ]; }
out() { ! volume_in_sync "$witness" "$VOLUME" | grep -qx "$1"; }
in_sync() { volume_is_in_sync "$witness" "$VOLUME"; }
acknowledges_more() { [ "$(io_writes)" -gt "$1" ]; }
log_of() { printf '%s/nodes/%s/log/agent.log' "$DIR" "$1"; }
# said NODE PATTERN: its log has it, since the last `forget NODE`.
said() { grep -qE "$2" "$(log_of "$1")"; }
not_said() { ! said "$1" "$2"; }
forget() { : >"$(log_of "$1")"; }
roles() { OWNER=$(volume_owner "$witness" "$VOLUME"); replica=$(printf '%s\n' "${members[@]}" | grep -vx "$OWNER"); }
# use NAME [PROPERTY=VALUE ...]: a volume of its own for each part, since who is thrown out often is let in late (21).
use() {
    VOLUME=$1
    volume_make 64M 2 n1 "${@:2}"
    mapfile -t members < <(volume_members n1 "$VOLUME")
    witness=$(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
    eventually 10 "both replicas are in sync" in_sync
    on n1 "/volumes/$VOLUME" set slow=1s >/dev/null || fail "slow cannot be set"
    roles
    io_start --seconds 120 --rate 2000 -- n1 n2 n3
    io_under_way
}
# judge: what the initiator found; and all replicas are equal.
judge() {
    io_stop
    io_verified
    say "    longest gap in acknowledged I/O: $IO_GAP_MS ms"
    eventually 5 "the replicas are equal byte by byte" replicas_equal "$VOLUME"
}
use vol1

say "-- 10: write errors"
tb fault "$replica" 'error operations=write count=1'
eventually 5 "a write error takes $replica out" out "$replica"
eventually 15 "... and it comes back by itself" in_sync
expect "$OWNER still owns the volume" owner_is "$OWNER"
tb fault "$OWNER" 'error operations=write count=1'
eventually 5 "a write error of the owner's own disk takes it out" out "$OWNER"
tb fault "$OWNER"
eventually 20 "... and it comes back by itself" in_sync
roles
tb fault "$replica" 'error operations=write status=ENOSPC'
eventually 5 "a disk that is full goes out" out "$replica"
tb fault "$replica" 'error operations=all'
sleep 2
expect "... and one that fails for good stays out" out "$replica"
tb fault "$replica"
eventually 20 "healed, it comes back" in_sync

say "-- 11: read errors"
roles
tb fault "$OWNER" 'error operations=read every=3'
sleep 1
expect "nobody leaves for read errors" in_sync
tb fault "$OWNER" 'error operations=read status=EBADMSG'
sleep 1
expect "nor for bad checksums" in_sync
tb fault "$OWNER"

say "-- 31: a slow disk, a disk that hangs"
roles
tb fault "$replica" 'delay write_ms=60'
sleep 1
expect "a disk that is a bit slow stays" in_sync
tb fault "$replica" 'delay ms=86400000'
eventually 4 "a disk that hangs goes out" out "$replica"
tb fault "$replica"
eventually 20 "... and comes back" in_sync
roles
tb fault "$OWNER" 'delay ms=86400000'
eventually 5 "when the owner's own disk hangs, another node takes over" owner_is "$replica"
now=$(io_writes)
# What the hung disk holds is answered late: an initiator goes on when it has given those commands up (10 s).
eventually 15 "... and I/O goes on" acknowledges_more $((now + 50))
tb fault "$OWNER"
eventually 20 "... and it comes back" in_sync
judge

use vol2
say "-- 15: a sync that fails"
roles
forget "$replica"
tb fault "$replica" 'sync EIO .meta' 'write EIO .meta'
# Metadata is written when a region is written that was quiet, or when marks are cleared.
tb exec client -- timeout 20 qemu-io -f raw -c 'write -P 0x5a 60M 1M' "$(url "$OWNER")" >"$OUT/qemu-io" 2>&1 || fail "a write fails while a replica's metadata cannot be written"
eventually 12 "a replica whose metadata cannot be written goes out" out "$replica"
sleep 2
expect "... and stays out" out "$replica"
tb fault "$replica"
tb kill "$replica" agent
tb start "$replica" >/dev/null
eventually 25 "started anew on a good disk it comes back" in_sync
roles
forget "$OWNER"
tb fault "$OWNER" 'sync EIO state.db'
on "$witness" /volumes create pending size=4M replicas=1 >/dev/null 2>&1 || true
eventually 10 "a node whose state cannot be made durable steps out" said "$OWNER" 'steps out of the cluster'
says_why() { on "$OWNER" status 2>/dev/null | grep -q 'state store of this node failed'; }
eventually 5 "... and says so" says_why
eventually 10 "... the others go on without it" cluster_sees 2 "$witness" "$replica"
eventually 10 "... and the volume is served elsewhere" owner_is "$replica"
tb fault "$OWNER"
tb kill "$OWNER" agent
tb start "$OWNER" >/dev/null
eventually 25 "started anew on a good disk it comes back" in_sync

judge

use vol3
say "-- 12 and 13: metadata damaged while the node is off"
uuid=$(prop "$witness" "/volumes/$VOLUME" uuid)
metadata_of() { find "$DIR/nodes/$1/state" -name "$uuid.meta"; }
# damage NODE SLOT...: a few bytes in the middle of a header slot.
damage() {
    local file slot
    file=$(metadata_of "$1")
    shift
    for slot in "$@"; do printf 'torn' | dd of="$file" bs=1 seek=$((slot * 4096 + 30)) conv=notrunc status=none; done
}
copied_since() { COPIED=$(($(volume_resynced "$OWNER" "$VOLUME") - $1)); }
for slots in 0 1 '0 1'; do
    tb kill "$replica" power
    eventually 15 "$replica is off" out "$replica"
    # shellcheck disable=SC2086 # words
    damage "$replica" $slots
    forget "$replica"
    before=$(volume_resynced "$OWNER" "$VOLUME")
    tb start "$replica" >/dev/null
    eventually 30 "with header slot $slots damaged it comes back" in_sync
    if [ "$slots" = '0 1' ]; then
        expect "... as a blank one" said "$replica" 'is made anew'
        copied_since "$before"
        say "    $COPIED bytes copied: the old ones are compared by digests"
    else
        expect "... and is no blank one" not_said "$replica" 'is made anew'
        copied_since "$before"
        say "    $COPIED bytes copied, by its marks"
    fi
done
judge

use vol4 checksum=on
say "-- 11: bits rot on a disk, and there are checksums"
client() { tb exec client -- timeout 20 qemu-io -f raw -c "$1" "$(url "$witness")" >"$OUT/qemu-io" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io"; }
# byte NODE OFFSET VALUE: the replica's file has it there; rot NODE OFFSET changes it.
byte() { [ "$(dd if="$(replica_file "$1" "$VOLUME")" bs=1 skip="$2" count=1 status=none | od -An -tx1 | tr -d ' ')" = "$3" ]; }
rot() { printf 'rot' | dd of="$(replica_file "$1" "$VOLUME")" bs=1 seek="$2" conv=notrunc status=none; }
figure_is() { [ "$(prop "$witness" "/volumes/$VOLUME/replicas/$1" "$2")" = "$3" ]; }
last_task() { on "$witness" /tasks ls | jq -r '[.[] | select(.kind == "task")] | last | .properties | [.kind, .state, .repaired] | join(" ")'; }
task_is() { [ "$(last_task)" = "$1" ]; }
expect "4 MiB are written" client 'write -P 0x66 48M 4M'
# Sums are believed where no write may be under way.
io_stop
io_verified
for node in "${members[@]}"; do eventually 20 "no marks of writes under way are left on $node" figure_is "$node" intent_marks 0; done
rot "$OWNER" $((48 * 1048576 + 5000))
expect "what is read is right" client 'read -P 0x66 48M 4M'
eventually 5 "the block is repaired in place" byte "$OWNER" $((48 * 1048576 + 5000)) 66
eventually 5 "... and counted" figure_is "$OWNER" repaired_blocks 1
rot "$replica" $((50 * 1048576 + 123))
on "$witness" "/volumes/$VOLUME" scrub repair=yes >/dev/null || fail "scrub does not start"
eventually 20 "a scrub finds and repairs what rots on the other" task_is "scrub done 1"
expect "... in its file" byte "$replica" $((50 * 1048576 + 123)) 66
expect "nobody left the in-sync set" in_sync
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
