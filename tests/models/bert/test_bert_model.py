"""What a BERT's losses count, and what its config refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx.batch import BatchArray
from mjx.errors import InputError
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig

CLASSIFIER = BertConfig(
    num_layers=1,
    hidden_size=16,
    vocab_size=31,
    vocab_divisor=1,
    max_positions=12,
    token_types=2,
    attention=AttentionConfig(num_heads=2),
    mlp=MLPConfig(features=24),
    tie_embeddings=True,
    pooler=True,
    classes=3,
    init_std=0.4,
)
PAIRS = dataclasses.replace(CLASSIFIER, classes=None, sentence_head=True)


def rows(**more) -> dict:
    random = np.random.RandomState(0)
    segments = np.ones((4, 8), np.int32)
    segments[1, 5:] = 0
    return {"tokens": random.randint(0, 31, (4, 8)).astype(np.int32), "segment_ids": segments, **more}


def said(config: BertConfig, batch: dict, **more):
    """The model, and its loss and report."""
    model = config.build(nnx.Rngs(params=jax.random.key(0)))
    return model, *model.loss(batch, model.counts(batch), **more)


def logits_of(model, batch: dict) -> np.ndarray:
    from mjx.models.bert.model import inputs_of

    hidden = model.hidden_states(inputs_of(batch, training=False))
    head = model.class_logits if model.classifier is not None else model.sentence_logits
    return np.asarray(head(model.pooled(hidden)), np.float64)


def test_the_loss_of_classes_is_the_cross_entropy_of_the_rows_that_count():
    labels, mask = np.array([2, 0, 1, 1], np.int32), np.array([1, 1, 1, 0], np.float32)
    batch = rows(labels=labels, loss_mask=mask)
    model, loss, report = said(CLASSIFIER, batch)
    logits = logits_of(model, batch)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), labels]
    np.testing.assert_allclose(loss, losses[:3].mean(), rtol=1e-5)
    assert model.counts(batch) == {"samples": 3}
    right = (logits.argmax(-1) == labels)[:3].mean()
    assert float(report.losses["accuracy"].total) == pytest.approx(right)
    labels = labels.copy()
    labels[3] = -1  # of a row that only fills the batch
    assert float(said(CLASSIFIER, {**batch, "labels": labels})[1]) == float(loss)


def test_the_loss_of_a_number_is_the_squared_error():
    config = dataclasses.replace(CLASSIFIER, classes=1)
    labels, mask = np.array([0.5, -1.0, 2.0, 9.0], np.float32), np.array([1, 1, 1, 0], np.float32)
    model, loss, report = said(config, batch := rows(labels=labels, loss_mask=mask))
    np.testing.assert_allclose(loss, ((logits_of(model, batch)[:3, 0] - labels[:3]) ** 2).mean(), rtol=1e-5)
    assert set(report.losses) == {"loss"}


def test_dropout_is_in_front_of_the_classifier_too():
    config = dataclasses.replace(CLASSIFIER, dropout=0.5, embedding_dropout=0.0, num_layers=1)
    batch = rows(labels=np.zeros(4, np.int32), loss_mask=np.ones(4, np.float32))
    losses = {float(said(config, batch, key=jax.random.key(seed))[1]) for seed in range(2)}
    assert len({*losses, float(said(config, batch)[1])}) == 3


def test_rows_that_only_fill_the_batch_say_nothing_of_pairs():
    random = np.array([1, 0, 1, -1], np.int32)
    mask = np.ones((4, 8), np.float32)
    mask[3] = 0
    batch = rows(labels=np.zeros((4, 8), np.int32), loss_mask=mask, is_random=random)
    model, loss, report = said(PAIRS, batch)
    logits = logits_of(model, batch)[:3]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(3), random[:3]]
    np.testing.assert_allclose(report.losses["sentence_loss"].total, losses.mean(), rtol=1e-5)
    assert model.counts(batch)["samples"] == 3
    other = {**batch, "tokens": batch["tokens"].copy()}
    other["tokens"][3] = 7
    assert float(said(PAIRS, other)[1]) == float(loss)
    assert jnp.isfinite(loss)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": 0}, "model.classes = 0 must be positive, or null for none"),
        ({"pooler": False}, "model.classes = 3 reads what the pooler makes; set model.pooler = true"),
        ({"head_bias": True}, "model.head_bias = true is of a head that model.classes = 3 leaves untrained"),
        ({"sentence_head": True}, "model.sentence_head = true is of a head that model.classes = 3 leaves"),
    ],
)
def test_heads_that_nothing_trains_are_refused(changes, sentence):
    with pytest.raises(InputError) as refused:
        dataclasses.replace(CLASSIFIER, **changes)
    assert str(refused.value).startswith(sentence)


def test_batches_of_labels_are_told_from_others():
    rows_ = {
        "tokens": BatchArray(shape=(4, 8), dtype="int32", axes=("batch", "sequence")),
        "labels": BatchArray(shape=(4,), dtype="int32", axes=("batch",)),
        "loss_mask": BatchArray(shape=(4,), dtype="float32", axes=("batch",)),
    }
    CLASSIFIER.check_batch(rows_)
    with pytest.raises(InputError, match=r"model.classes = 1 learns numbers; leave data.classes out"):
        dataclasses.replace(CLASSIFIER, classes=1).check_batch(rows_)
    whole = BatchArray(shape=(4, 8), dtype="int32", axes=("batch", "sequence"))
    with pytest.raises(InputError, match=r"has the shape \(4, 8\); model.classes = 3 takes one of each row"):
        CLASSIFIER.check_batch({**rows_, "labels": whole})
