"""The time of a collective over the links of the chips.

Within a host, or where the links connect hosts, a chip sends at `link_bandwidth`. Between hosts, a chip sends through
its own network adapter, at `host_bandwidth`:

- a ring visits the chips of a host one after the other and leaves it through one adapter. With k chips of the group on
  each host, k rings that leave it through different adapters share the bytes, so they travel at k * host_bandwidth, but
  not faster than the links;
- in an all-to-all over n chips, n - k of the n - 1 parts that a chip sends go through its adapter.
"""

from collections.abc import Sequence

from mlagent_jax.aot.chips import Chip
from mlagent_jax.aot.traffic import Sent


def send_seconds(sent: Sent, chip: Chip, hosts: Sequence[int]) -> float:
    """Return the time in which the slowest group of a collective sends its bytes at full bandwidth.

    Args:
        sent: The bytes of a chip and their receivers.
        chip: The chip.
        hosts: The host of each device of the module; empty if there is one host.
    """
    if chip.host_bandwidth is None or not hosts:
        return sent.num_bytes / chip.link_bandwidth
    return max(
        sent.num_bytes / _bandwidth(sent.kind, [hosts[device] for device in group], chip) for group in sent.groups
    )


def _bandwidth(kind: str, hosts: Sequence[int], chip: Chip) -> float:
    assert chip.host_bandwidth is not None
    here = min(hosts.count(host) for host in hosts)
    if here == len(hosts):
        return chip.link_bandwidth
    adapters = (len(hosts) - 1) / (len(hosts) - here) if kind == "all-to-all" else here
    return min(chip.link_bandwidth, adapters * chip.host_bandwidth)
