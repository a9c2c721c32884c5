#!/usr/bin/env bash
# Real clients log in, write, read back and verify, through the owner's portal and through another node's.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2

client() { tb exec client -- timeout 60 "$@" >"$OUT/${1##*/}" 2>&1; }
said() { grep -qE "$2" "$OUT/$1"; }

for node in "$OWNER" "$OTHER"; do
    role=$([ "$node" = "$OWNER" ] && echo owner || echo "another node")
    portal="iscsi://$(address_of "$node"):3260"
    expect "iscsi-ls finds the target at $node ($role)" client iscsi-ls -s "$portal"
    expect "... by its name" said iscsi-ls "$IQN"
    expect "... with its size" said iscsi-ls 'Lun:0 .*DIRECT_ACCESS \(Size:6[34]M\)'
    expect "iscsi-inq, standard data" client iscsi-inq "$(url "$node")"
    expect "... is a disk of ours" said iscsi-inq 'Vendor|Product'
    for page in 0x00 0x80 0x83 0xb0 0xb2; do
        expect "iscsi-inq, page $page" client iscsi-inq -e 1 -c "$((page))" "$(url "$node")"
        case $page in
            0x80) cp "$OUT/iscsi-inq" "$OUT/serial.$node" ;;
            0x83) cp "$OUT/iscsi-inq" "$OUT/identity.$node" ;;
        esac
    done
    expect "iscsi-readcapacity16" client iscsi-readcapacity16 "$(url "$node")"
    expect "qemu-io writes and reads back" client qemu-io -f raw -c 'write -P 0xa5 1M 3M' -c 'read -P 0xa5 1M 3M' -c 'write -P 0x5a 5000k 12k' -c 'read -P 0x5a 5000k 12k' -c 'flush' "$(url "$node")"
    if said qemu-io 'verification failed|error'; then fail "qemu-io found other bytes: $(cat "$OUT/qemu-io")"; fi
    expect "qemu-io discards" client qemu-io -f raw -c 'discard 8M 1M' -c 'write -z 10M 1M' -c 'read -P 0 10M 1M' "$(url "$node")"
    if said qemu-io 'verification failed'; then fail "qemu-io found other bytes: $(cat "$OUT/qemu-io")"; fi

    head -c 24M /dev/urandom >"$OUT/image.raw"
    expect "qemu-img writes an image" client qemu-img convert -n -f raw -O raw "$OUT/image.raw" "$(url "$node")"
    expect "qemu-img info" client qemu-img info "$(url "$node")"
    expect "qemu-img reads it back" client qemu-img convert -f raw -O raw "$(url "$node")" "$OUT/back.raw"
    expect "... the same bytes" cmp -n $((24 << 20)) "$OUT/image.raw" "$OUT/back.raw"
    tb exec client -- timeout --signal=INT 3 iscsi-perf -r -b 8 -m 16 -t 2 "$(url "$node")" >"$OUT/iscsi-perf" 2>&1 || true
    expect "iscsi-perf reads at random" said iscsi-perf 'iops'
    say "    $(tr '\r' '\n' <"$OUT/iscsi-perf" | grep iops | tail -n 1 | tr -s ' ')"
done
# Of the device itself: names of ports and port groups differ, as they must.
of_the_unit() { awk 'BEGIN { RS = "DEVICE DESIGNATOR #" } /Association:\(0\) LOGICAL_UNIT/ { sub(/^[0-9]+/, ""); print }' "$1"; }
expect "the unit has a designator of its own" [ -n "$(of_the_unit "$OUT/identity.$OWNER")" ]
expect "the unit has the same identity through both" same "$(of_the_unit "$OUT/identity.$OWNER")" "$(of_the_unit "$OUT/identity.$OTHER")"
expect "and the same serial number" cmp "$OUT/serial.$OWNER" "$OUT/serial.$OTHER"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
