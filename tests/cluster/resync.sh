#!/usr/bin/env bash
# A node that returns is sent only what changed while it was away, and then the replicas are equal byte by byte.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 256M 2
away=$(volume_members n1 "$VOLUME" | grep -vx "$OWNER")

write() { tb exec client -- timeout 60 qemu-io -f raw -c "write -P $1 $2 $3" "$(url "$OWNER")" >"$OUT/qemu-io" 2>&1; }
expect "64 MiB are written to both replicas" write 0x11 0 64M
# What was written just before a node dies is in doubt on it, and is copied too: so writing is long over first, as the marks of
# writes under way say, and only what changes from here on is to be copied.
marks_gone() { [ "$(prop n1 "/volumes/$VOLUME/replicas/$1" intent_marks)" = 0 ]; }
for node in $(volume_members n1 "$VOLUME"); do eventually 20 "no marks of writes under way are left on $node" marks_gone "$node"; done
tb kill "$away" power
expect "4 MiB are written while $away is off" write 0x22 8M 4M
expect "and 1 MiB elsewhere" write 0x33 200M 1M
expect "the volume is degraded, and says so" [ "$(volume_in_sync "$OWNER" "$VOLUME")" = "$OWNER" ]
tb start "$away"
eventually 20 "$away is back" cluster_sees 3 n1 n2 n3
eventually 30 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"

# Live figures follow within a second or two.
resynced_all() { [ "$(volume_resynced "$OWNER" "$VOLUME")" -ge 5242880 ]; }
wait_for 5 resynced_all || true
bytes=$(volume_resynced "$OWNER" "$VOLUME") || fail "the API does not tell how much was resynced"
say "resynced $bytes bytes for 5242880 bytes changed, of a volume of 268435456"
[ "$bytes" -ge 5242880 ] || fail "that is less than what changed"
[ "$bytes" -le 16777216 ] || fail "that is much more than what changed"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
read_back() { tb exec client -- timeout 60 qemu-io -f raw -c "read -P 0x22 8M 4M" -c "read -P 0x33 200M 1M" -c "read -P 0x11 12M 52M" "$(url "$1")" >"$OUT/qemu-io" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io"; }
expect "what was written is read back" read_back "$away"

say "-- 2: the replica dies while it resyncs; 3: the only source does"
witness=$(nodes_all | grep -vxF -f <(volume_members n1 "$VOLUME"))
state() { prop "$witness" "/volumes/$VOLUME/replicas/$away" state; }
resyncs() { [[ $(state) == syncing* ]]; }
alone() { [ "$(volume_in_sync "$witness" "$VOLUME")" = "$OWNER" ]; }
# fall_behind: 24 MiB are written while the replica is off; when it is back, its resync takes a while.
fall_behind() {
    tb kill "$away" power
    eventually 15 "$away is out of the in-sync set" alone
    expect "24 MiB are written" write "$1" 100M 24M
    on "$witness" "/volumes/$VOLUME" set resync_cap=4M >/dev/null || fail "resync_cap cannot be set"
    tb start "$away" >/dev/null
    eventually 20 "$away resyncs" resyncs
    sleep 1
}
fall_behind 0x44
tb kill "$away" power
tb start "$away" >/dev/null
eventually 20 "after its death it resyncs again" resyncs
expect "... and does not count yet" alone
tb kill "$OWNER" power
sleep 3
expect "it does not take over when the source dies" [ "$(volume_owner "$witness" "$VOLUME")" = "$OWNER" ]
unread() { ! tb exec client -- timeout 3 qemu-io -r -f raw -c 'read 100M 4k' "$(url "$away")" >"$OUT/qemu-io" 2>&1; }
expect "... nor answers reads" unread
tb start "$OWNER" >/dev/null
eventually 20 "$OWNER is back" cluster_sees 3 n1 n2 n3
on "$witness" "/volumes/$VOLUME" set resync_cap=0 >/dev/null || fail "resync_cap cannot be taken back"
eventually 30 "$VOLUME is in sync" volume_is_in_sync "$witness" "$VOLUME"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
