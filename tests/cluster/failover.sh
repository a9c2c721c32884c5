#!/usr/bin/env bash
# failover.sh agent|power: the owner is killed while a client writes and reads through the owner's and another node's
# portal. Nothing acknowledged may be lost, torn or stale; the longest gap in acknowledged I/O is printed.
WHAT=${1:?agent or power}
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
TEST=${TEST}_$WHAT
case $WHAT in
    agent) aim_ms=500 limit_ms=3000 ;;
    power) aim_ms=2000 limit_ms=6000 ;;
    *) fail "agent or power, not '$WHAT'" ;;
esac
begin_cluster 3
volume_make 128M 2
epoch=$(volume_epoch n1 "$VOLUME")

# The dead path is not waited for in the last check: it does not come back before it.
io_start --seconds 10 --settle-ms 1500 -- "$OWNER" "$OTHER"
io_under_way
tb kill "$OWNER" "$WHAT"
ok "killed $OWNER, the owner ($WHAT), with I/O under way"
eventually 15 "another node owns $VOLUME" volume_owner_is_not "$OTHER" "$VOLUME" "$OWNER"
expect "the epoch went up" [ "$(volume_epoch "$OTHER" "$VOLUME")" -gt "$epoch" ]
io_verified
say "longest gap in acknowledged I/O after the loss of the owner ($WHAT): $IO_GAP_MS ms (aim: under $aim_ms ms)"
[ "$IO_GAP_MS" -le "$limit_ms" ] || fail "that is more than $limit_ms ms"

tb start "$OWNER"
eventually 20 "$OWNER is back" cluster_sees 3 n1 n2 n3
eventually 40 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
eventually 5 "the replicas are equal byte by byte" replicas_equal "$VOLUME"
