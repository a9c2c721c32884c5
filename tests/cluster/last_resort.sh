#!/usr/bin/env bash
# The replicas that are in sync are lost, and one that lacks writes is forced into service: only by the operator's word, with what is
# lost said first; what the lost ones held is left alone until it is discarded. And a verify that goes on through a failover.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 4
# Without checksums: it is the comparison that has to find what differs.
volume_make 256M 2 n1 checksum=off
mapfile -t members < <(volume_members n1 "$VOLUME")
mapfile -t others < <(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
witness=${others[0]}
stale=$(printf '%s\n' "${members[@]}" | grep -vx "$OWNER")
uuid=$(prop n1 "/volumes/$VOLUME" uuid)
words() { timeout 40 "$DIRECTOR" --socket "$DIR/nodes/$witness/run/director.sock" "$@"; }
in_sync_is() { [ "$(volume_in_sync "$witness" "$VOLUME" | tr '\n' ' ')" = "$1 " ]; }
both() { volume_is_in_sync "$witness" "$VOLUME"; }
io() { tb exec client -- timeout 60 qemu-io -f raw -c "$2" "$(url "$1")" >"$OUT/qemu-io" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io"; }
state_of() { prop "$witness" "/volumes/$VOLUME" state; }
suspended() { [ "$(state_of)" = suspended ]; }
serves() { [ "$(volume_owner "$witness" "$VOLUME")" = "$1" ] && portal_serves "$witness"; }
last_task() { on "$witness" /tasks ls | jq -r '[.[] | select(.kind == "task")] | last | .properties | [.kind, .state, .mismatches, .repaired] | join(" ")'; }
task_is() { [ "$(last_task)" = "$1" ]; }
eventually 10 "both replicas are in sync" both

say "-- marks"
expect "data are written" io "$OWNER" 'write -P 0x11 0 64M'
marks() { [ "$(prop "$witness" "/volumes/$VOLUME/replicas/$1" intent_marks)" = "$2" ]; }
eventually 30 "the marks of writes under way go to 0 on the owner" marks "$OWNER" 0
eventually 15 "... and on the other" marks "$stale" 0

say "-- verify, through the loss of the owner"
# one block that differs, where nothing is written
printf 'rot' | dd of="$(replica_file "$stale" "$VOLUME")" bs=1 seek=$((200 * 1048576)) conv=notrunc status=none
on "$witness" "/volumes/$VOLUME" set resync_cap=20M >/dev/null || fail "resync_cap cannot be set"
on "$witness" "/volumes/$VOLUME" verify repair=yes >/dev/null || fail "verify does not start"
refused "a second check at the same time" 'already.*cancel' on "$witness" "/volumes/$VOLUME" scrub
begun() { [ "$(on "$witness" /tasks ls | jq -r '[.[] | select(.kind == "task")] | last | .properties.done // 0')" -gt 50000000 ]; }
eventually 20 "it is under way" begun
words ls /tasks
sleep 6 # where it is is committed every 5 s
before=$(volume_owner "$witness" "$VOLUME")
on "$witness" "/volumes/$VOLUME" move "owner=$stale" >/dev/null || fail "the volume cannot be moved"
on "$witness" "/volumes/$VOLUME" set resync_cap=0 >/dev/null || fail "resync_cap cannot be taken back"
eventually 60 "it goes on at the new owner, finds the block and repairs it" task_is "verify done 1 1"
words ls /tasks
expect "... not from the beginning" grep -qE "task 1 goes on from [1-9]" "$DIR/nodes/$stale/log/agent.log"
on "$witness" "/volumes/$VOLUME" move "owner=$before" >/dev/null || fail "the volume cannot be moved back"
eventually 15 "$before serves again" serves "$before"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"

say "-- a stale replica is forced into service"
tb kill "$stale" power
eventually 15 "$stale is out of the in-sync set" in_sync_is "$OWNER"
expect "writes go on without it" io "$OWNER" 'write -P 0x22 64M 8M'
refused "to force a volume that is served" 'nothing to force|offline' on "$witness" "/volumes/$VOLUME" force "node=$stale" reason=test
sleep 2 # figures are told every second
tb kill "$OWNER" power
eventually 15 "the volume is suspended" suspended
tb start "$stale" >/dev/null
back() { [ "$(prop "$witness" "/nodes/$stale" state)" = online ]; }
eventually 20 "$stale is back" back
expect "... and does not serve by itself" suspended
words "/volumes/$VOLUME" force "node=$stale" reason="test of the last resort" </dev/null >"$OUT/preview" 2>&1 && fail "it was done without a word"
cat "$OUT/preview"
expect "it says what would be lost" grep -q "$OWNER (offline) has all of them" "$OUT/preview"
expect "... and how much is known" grep -qE 'at least [0-9.]+[KMG]' "$OUT/preview"
expect "... and the way out" grep -q "nothing is lost if you can start $OWNER" "$OUT/preview"
expect "nothing was changed by asking" suspended
words --yes "/volumes/$VOLUME" force "node=$stale" reason="test of the last resort" >/dev/null 2>&1 || fail "force was refused"
eventually 20 "$stale serves" serves "$stale"
expect "it has what it had" io "$stale" 'read -P 0x11 0 64M'
expect "... and takes writes" io "$stale" 'write -P 0x33 0 4M'
expect "who, when and why are kept" sh -c "on_events() { timeout 40 '$DIRECTOR' --socket '$DIR/nodes/$witness/run/director.sock' ls /events; }; on_events | grep FORCED | grep -q 'test of the last resort.*root'"
words ls /events | tail -n 3

say "-- what the lost one held is left alone"
tb start "$OWNER" >/dev/null
held() { [ "$(prop "$witness" "/volumes/$VOLUME/replicas/$OWNER" state)" = held ]; }
eventually 20 "$OWNER is back, and held" held
sleep 2
path=$(find "$DIR/nodes/$OWNER/state" -name "$uuid.data")
expect "its newer data are there still" sh -c "dd if='$path' bs=1M skip=64 count=8 status=none | tr -d '\\042' | cmp -s - /dev/null"
words "/volumes/$VOLUME" discard "node=$OWNER" reason="not needed" </dev/null >"$OUT/preview" 2>&1 && fail "it was done without a word"
cat "$OUT/preview"
expect "it says that they are lost for good" grep -q 'lost for good' "$OUT/preview"
words --yes "/volumes/$VOLUME" discard "node=$OWNER" reason="not needed" >/dev/null 2>&1 || fail "discard was refused"
eventually 60 "it is made anew from the other" both
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
expect "with what was forced" io "$OWNER" 'read -P 0x33 0 4M'
