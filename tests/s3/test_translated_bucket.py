"""A folder in a bucket, translated into another one while the store throttles, resets and loses requests."""

from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from fault_proxy import Fault, FaultProxy
from object_stores import Bucket
from PIL import Image

from cluster.translation.listing import list_work
from cluster.translation.options import TranslationSettings
from cluster.translation.record import begin
from cluster.translation.translator import Translator
from data_shards.storage import list_files, locate, read_file, write_file
from nla_cyclegan import Generator, GeneratorConfig, translate_images

pytestmark = pytest.mark.slow

SETTINGS = TranslationSettings("B2A", ".png", None, 4, 1024, "fp32")


@pytest.mark.parametrize("store", ["rclone", "moto"], indirect=True)
def test_each_image_once_through_faults(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    random, pixels = np.random.default_rng(0), {}
    for index in range(20):
        pixels[f"sub {index % 2}/{index}"] = random.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels[f"sub {index % 2}/{index}"]).save(tmp_path / "image.png")
        write_file(locate(bucket.uri("in")), f"sub {index % 2}/{index}.png", (tmp_path / "image.png").read_bytes())
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=())).eval()
    with FaultProxy(bucket.store.port) as proxy:
        source, out = bucket.uri("in", proxy), bucket.uri("out", proxy)
        proxy.fail(Fault("slow_down"), times=3)
        begin(locate(out), generator, SETTINGS)
        images = list_work(locate(source), locate(out), ".png").images
        worker = Translator([generator], source, out, SETTINGS, 2, use_gpu=False)
        for fault in (Fault("slow_down"), Fault("reset", after=50), Fault("lost")):
            for method in ("GET", "PUT"):
                proxy.fail(fault, times=3, skip=2, method=method, path="/sub")
        report = worker.translate(images)
        assert not list_work(locate(source), locate(out), ".png").images.num_rows
    assert {"slow_down", "reset", "lost"} == set(proxy.faults)
    assert (report.done, report.left_out) == (20, {})
    place = locate(bucket.uri("out"))
    assert set(list_files(place)) == {"translation.json", *(f"{name}.png" for name in pixels)}
    for name, image in pixels.items():
        (tmp_path / "result.png").write_bytes(read_file(place, f"{name}.png") or b"")
        expected = translate_images(generator, torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        assert torch.equal(torch.from_numpy(np.array(Image.open(tmp_path / "result.png"))).permute(2, 0, 1), expected)
