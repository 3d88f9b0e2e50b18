"""The groups of collectives, and their time over the links within and between hosts."""

import pytest

from mlagent_jax.aot.chips import CHIPS
from mlagent_jax.aot.groups import Groups, groups_of
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.links import send_seconds
from mlagent_jax.aot.traffic import Sent

MODULE = """
ENTRY %main (a: bf16[256,8]) -> bf16[256,8] {
  %a = bf16[256,8]{1,0} parameter(0)
  ROOT %sum = bf16[256,8]{1,0} all-reduce(%a), ATTRIBUTES, to_apply=%add
}
"""
TWO_HOSTS = [0, 0, 0, 0, 1, 1, 1, 1]
ALL, WITHIN, ACROSS = ((0, 1, 2, 3, 4, 5, 6, 7),), ((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 4), (1, 5), (2, 6), (3, 7))


def groups(attributes: str) -> Groups:
    module = parse(MODULE.replace("ATTRIBUTES", attributes))
    return groups_of(module.entry.instructions["sum"], num_devices=8)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("replica_groups={}", ALL),
        ("channel_id=1", ALL),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", ACROSS),
        ("replica_groups=[2,4]<=[8]", WITHIN),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ACROSS),
        ("replica_groups=mesh['x'=2,'y'=4] {'y'}", WITHIN),
        ("replica_groups=mesh['x'=2,'y'=4] {'x'}", ACROSS),
        ("replica_groups=mesh['x'=2,'y'=4] {'x','y'}", ALL),
        ("replica_groups=mesh['x'=8] {'x':(2)4}", WITHIN),
        ("replica_groups=mesh['x'=8] {'x':(1)2}", ACROSS),
        ("replica_groups=mesh['x'=8] {'x':(1)2,'x':(4)2}", ((0, 1, 4, 5), (2, 3, 6, 7))),
        ("replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}", WITHIN),
        ("replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}", ACROSS),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
    ],
)
def test_groups_in_every_notation(attributes: str, expected: Groups) -> None:
    assert groups(attributes) == expected


def test_an_unknown_notation_is_an_error() -> None:
    with pytest.raises(ValueError, match="the groups of sum are in an unknown notation"):
        groups("replica_groups=<everyone>")


@pytest.mark.parametrize(
    ("kind", "over", "gigabytes_per_second"),
    [
        ("all-gather", WITHIN, 450),
        ("all-to-all", WITHIN, 450),
        ("all-reduce", ALL, 4 * 50),  # four rings, each through another adapter
        ("all-reduce", ACROSS, 50),
        ("collective-permute", ((0, 1), (3, 4)), 50),  # the slower pair
        ("all-to-all", ALL, 50 * 7 / 4),  # four of the seven parts go to the other host
        ("all-to-all", ACROSS, 50),
    ],
)
def test_between_hosts_a_collective_is_as_fast_as_its_adapters(
    kind: str, over: Groups, gigabytes_per_second: float
) -> None:
    sent = Sent(kind, 1e9, over, overlaps=True)
    assert send_seconds(sent, CHIPS["h100"], TWO_HOSTS) == pytest.approx(1 / gigabytes_per_second)
    assert send_seconds(sent, CHIPS["h100"], [0] * 8) == pytest.approx(1 / 450)
    assert send_seconds(sent, CHIPS["v5p"], TWO_HOSTS) == pytest.approx(1 / 600)  # the links of a slice join its hosts
