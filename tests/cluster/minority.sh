#!/usr/bin/env bash
# A minority side never acknowledges a write: an owner cut off from the other nodes, but not from its client, stops; the
# others take over. Two nodes without a third that lose each other stop rather than split.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2

write_through() { tb exec client -- timeout "$3" qemu-io -f raw -c "write -P $2 0 4k" "$(url "$1")" >"$OUT/qemu-io.$1" 2>&1; }
expect "a write through the owner, all well" write_through "$OWNER" 0x01 10
tb isolate "$OWNER" --keep-client
eventually 10 "the others own $VOLUME now" volume_owner_is_not "$OTHER" "$VOLUME" "$OWNER"
if write_through "$OWNER" 0x66 8; then fail "the isolated owner acknowledged a write"; fi
ok "the isolated owner acknowledges nothing"
eventually 10 "a write through the majority" write_through "$OTHER" 0x02 10
tb heal
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 30 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
reads() { tb exec client -- timeout 10 qemu-io -f raw -c "read -P $2 0 4k" "$(url "$1")" >"$OUT/qemu-io.$1" 2>&1 && ! grep -q 'verification failed' "$OUT/qemu-io.$1"; }
for node in n1 n2 n3; do eventually 10 "$node reads what the majority wrote" reads "$node" 0x02; done
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"

tb down
rm -rf "$OUT"
begin_cluster 2
volume_make 64M 2
expect "two nodes: a write, all well" write_through n1 0x01 10
tb cut n1 n2
for node in n1 n2; do eventually 10 "$node knows that it is alone" node_not_quorate "$node"; done
for node in n1 n2; do
    if write_through "$node" 0x66 6; then fail "$node, alone, acknowledged a write"; fi
    ok "$node, alone, acknowledges nothing"
    refused "a change on $node, alone" 'quor|majority' on "$node" /volumes create alone size=16M replicas=1
done
tb heal
eventually 20 "both are together again" cluster_sees 2 n1 n2
for node in n1 n2; do eventually 30 "a write through $node goes on" write_through "$node" 0x03 10; done
eventually 30 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
