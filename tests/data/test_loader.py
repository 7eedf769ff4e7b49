"""The loader: which process reads which sample, resuming, reading ahead, evaluation to the last sample."""

import numpy as np
import pytest

from mjx.data.dataset import Dataset, InterleavedDataset
from mjx.data.loader import Loader, evaluation_batches
from mjx.errors import InputError


class Samples(Dataset):
    """Row r of a batch says which sample it is."""

    def __init__(self, size, broken=None):
        self.size, self.broken = size, broken

    def __len__(self):
        return self.size

    def read(self, samples):
        if self.broken in samples:
            raise InputError("this sample is broken")
        tokens = np.repeat(samples[:, None], 3, axis=1).astype(np.int32)
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}

    def blank(self, batch, rows):
        batch["loss_mask"][rows] = 0.0


class Pairs(Samples):
    """What is learnt of a row is a class, and whether two rows belong together."""

    def read(self, samples):
        return {
            "labels": np.asarray(samples, np.int32),
            "class_weight": np.ones(len(samples), np.float32),
            "pair_weight": np.full((len(samples), 2), 0.5, np.float32),
        }

    def blank(self, batch, rows):
        batch["class_weight"][rows] = 0.0
        batch["pair_weight"][rows] = 0.0


def ids(batch):
    return batch["tokens"][:, 0].tolist()


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (2, 1), (4, 3)])
def test_sample_id_is_step_times_batch_plus_row(prefetch, threads):
    loader = Loader(Samples(23), 5, prefetch=prefetch, threads=threads)
    assert [ids(batch) for batch in loader] == [list(range(5 * step, 5 * step + 5)) for step in range(4)]
    assert loader.num_steps == 4


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_rows_of_all_processes_partition_the_batch(processes):
    parts = np.split(np.random.RandomState(0).permutation(8), processes)
    loaders = [Loader(Samples(80), 8, part) for part in parts]
    for step in range(10):
        batches = [ids(next(loader)) for loader in loaders]
        assert sorted(sample for batch in batches for sample in batch) == list(range(8 * step, 8 * step + 8))
        assert batches == [(8 * step + part).tolist() for part in parts]


@pytest.mark.parametrize("taken", [0, 1, 7, 10])
def test_a_loader_resumed_from_its_state_goes_on_where_it_stopped(taken):
    whole = [ids(batch) for batch in Loader(Samples(80), 8)]
    first = Loader(Samples(80), 8)
    begun = [ids(next(first)) for _ in range(taken)]
    state = first.state()
    assert state == {"step": taken}
    resumed = Loader(Samples(80), 8, np.arange(4), start_step=state["step"])  # on twice as many processes
    assert begun + [ids(batch) for batch in resumed] == whole[:taken] + [rows[:4] for rows in whole[taken:]]
    assert resumed.state() == {"step": 10}


def test_an_error_while_reading_ahead_arrives_as_it_was_raised():
    loader = Loader(Samples(40, broken=13), 4, prefetch=4, threads=2)
    for _ in range(3):
        next(loader)
    with pytest.raises(InputError, match="this sample is broken"):
        next(loader)


def test_a_closed_loader_has_no_more_batches():
    loader = Loader(Samples(4000), 4, prefetch=4, threads=2)
    next(loader)
    loader.close()
    with pytest.raises(StopIteration):
        next(loader)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"global_batch_size": 41}, "40 samples, fewer than one batch of global_batch_size = 41"),
        ({"global_batch_size": 4, "rows": [4]}, r"rows = \[4\] are not rows"),
        ({"global_batch_size": 4, "rows": []}, r"rows = \[\] are not rows"),
        ({"global_batch_size": 4, "start_step": 11}, "start_step = 11 is not within the 10 steps"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Loader(Samples(40), **arguments)


def test_evaluation_reads_every_sample_once_and_masks_the_rest():
    seen = []
    for part in (np.arange(3), np.arange(3, 6)):
        batches = list(evaluation_batches(Samples(16), 6, part))
        assert [batch["tokens"].shape for batch in batches] == [(3, 3)] * 3
        for batch in batches:
            seen += [
                sample for sample, mask in zip(ids(batch), batch["loss_mask"], strict=True) if mask.all()
            ]
            assert set(batch["loss_mask"].sum(axis=1)) <= {0.0, 3.0}
    assert sorted(seen) == list(range(16))


@pytest.mark.parametrize("whole", [lambda d: d, lambda d: InterleavedDataset([d, Pairs(3)])])
def test_rows_that_fill_a_batch_lose_their_weight_as_their_kind_says(whole):
    dataset = whole(Pairs(2))
    batches = list(evaluation_batches(dataset, 4))
    weights = np.concatenate([batch["class_weight"] for batch in batches])
    assert weights.tolist() == [1.0] * len(dataset) + [0.0] * (len(weights) - len(dataset))
    assert sum(batch["pair_weight"].sum() for batch in batches) == len(dataset)


def test_evaluation_can_stop_early():
    assert [ids(batch) for batch in evaluation_batches(Samples(16), 6, num_batches=1)] == [list(range(6))]


def test_evaluation_of_less_than_a_batch_is_one_padded_batch():
    (batch,) = evaluation_batches(Samples(2), 4)
    assert batch["loss_mask"][:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
