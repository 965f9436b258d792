import torch

from cluster.memory.layout import ALIGNED_BYTES, Layout

TENSORS = {
    "weights": torch.arange(6, dtype=torch.float32).view(2, 3).contiguous(),
    "image": torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "count": torch.tensor(7.0, dtype=torch.float64),
    "half": torch.randn(5).to(torch.bfloat16),
    "flag": torch.tensor(True),
    "none": torch.empty(0, 3),
}


def test_tensors_come_back_as_they_were_also_by_way_of_json() -> None:
    layout = Layout.of(TENSORS)
    buffer = torch.zeros(layout.size, dtype=torch.uint8)
    views = layout.views(buffer)
    torch._foreach_copy_([*views.values()], [*TENSORS.values()])
    again = Layout.from_json(layout.to_json())
    assert again.fingerprint == layout.fingerprint
    back = again.views(buffer.clone())
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    assert all(place.start % ALIGNED_BYTES == 0 for place in layout.places.values())


def test_another_tensor_is_another_fingerprint() -> None:
    prints = {
        Layout.of(tensors).fingerprint
        for tensors in (TENSORS, TENSORS | {"count": torch.tensor(7.0)}, TENSORS | {"half": torch.randn(6)}, {})
    }
    assert len(prints) == 4
