"""An attempt whose memory runs out: what the answer says, and that nothing of it stays."""

from __future__ import annotations

import base64
import gc
import gzip
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from model_core.checkpoints import load_bundle
from model_core.inference.segmenter import Segmenter
from tests.service.fakes import (
    MODEL,
    FakeSegmenter,
    assert_problem,
    metric,
    running_app,
    study_files,
)
from tests.service.servers import form_files, head_images, write_tiny_bundle

JSON = {"accept": "application/json"}


class Shortage:
    """Makes a real network run out of memory at its last layer, for batches above a size."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.most, self.copies = 9, True
        self.seen: list[weakref.ref[Tensor]] = []
        self._refused = False
        network = segmenter._network
        network.register_forward_pre_hook(self._look)
        network.head.register_forward_pre_hook(self._fail)

    def _look(self, _: object, inputs: tuple[Tensor]) -> None:
        batch = inputs[0]
        copy = batch.untyped_storage().nbytes() == batch.numel() * 4
        self._refused = len(batch) > self.most or (copy and not self.copies)

    def _fail(self, _: object, inputs: tuple[Tensor]) -> None:
        self.seen.append(weakref.ref(inputs[0]))
        if self._refused:
            raise torch.OutOfMemoryError("tried to allocate")

    def alive(self) -> int:
        gc.collect()
        return sum(one() is not None for one in self.seen)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bundle(folder)
    return Segmenter(load_bundle(folder / "tiny"), precision="float32", window_batch=2)


@pytest.fixture(scope="module")
def client(real: Segmenter) -> Iterator[httpx.Client]:
    with running_app(segmenters={MODEL: real}) as client:  # type: ignore[dict-item]
        yield client


@pytest.fixture
def shortage(real: Segmenter) -> Iterator[Shortage]:
    made = Shortage(real)
    yield made
    for module in (real._network, real._network.head):
        module._forward_pre_hooks.clear()


def segment(client: httpx.Client, **options: str) -> httpx.Response:
    return client.post(
        "/segment",
        files=form_files(head_images()),
        data={"cache": "false", **options},
        headers=JSON,
    )


def labels_of(answer: dict[str, Any]) -> np.ndarray:
    data = gzip.decompress(base64.b64decode(answer["label_map"]["data"]))
    return np.asarray(nib.Nifti1Image.from_bytes(data).dataobj)


def test_an_answer_says_what_was_done_and_metrics_count_it(
    client: httpx.Client, shortage: Shortage
) -> None:
    plain = segment(client).json()
    assert plain["memory_steps"] == []
    sample = 'segmamba_memory_steps_total{step="smaller-batch"}'
    before = metric(client, sample)
    shortage.most = 1
    answer = segment(client).json()
    assert answer["memory_steps"] == ["smaller-batch"]
    assert answer["warnings"] == plain["warnings"]
    assert metric(client, sample) == before + 1
    assert np.array_equal(labels_of(answer), labels_of(plain))
    assert set(np.unique(labels_of(answer))) == {0, 1, 2, 4}
    assert shortage.seen
    assert shortage.alive() == 0


def test_passes_are_left_out_with_leave_only(client: httpx.Client, shortage: Shortage) -> None:
    shortage.copies = False
    refused = segment(client, tta="fast")
    assert_problem(refused, 503, "out-of-memory")
    assert shortage.seen
    assert shortage.alive() == 0
    answer = segment(client, tta="fast", allow_fewer_passes="true").json()
    assert answer["memory_steps"] == ["smaller-batch", "fewer-passes"]
    assert answer["tta"] == {"mode": "none", "passes": 1, "averaged": "logits"}
    assert any("one pass was made" in warning for warning in answer["warnings"])
    shortage.copies = True
    again = segment(client, tta="fast").json()
    assert again["memory_steps"] == []
    assert again["tta"]["passes"] == 4


def test_a_result_with_that_leave_answers_nobody_without_it() -> None:
    fake = FakeSegmenter()
    with running_app(fake) as client:

        def cached(**options: str) -> bool:
            job = client.post("/segment", files=study_files(), data=options)
            assert job.status_code == 200, job.text
            known = client.get("/jobs").json()["jobs"][0]
            assert known["options"]["allow_fewer_passes"] is (
                options.get("allow_fewer_passes") == "true"
            )
            return bool(known["cached"])

        assert not cached(allow_fewer_passes="true")
        assert cached(allow_fewer_passes="true")
        assert not cached()
        assert cached(allow_fewer_passes="false")
        assert cached(allow_fewer_passes="")
    assert [options.allow_fewer_passes for options in fake.options] == [True, False]


def test_leave_is_true_or_false(client: httpx.Client) -> None:
    answer = segment(client, allow_fewer_passes="perhaps")
    assert assert_problem(answer, 422, "option")["field"] == "allow_fewer_passes"
