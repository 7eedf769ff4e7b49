"""What cannot be is refused before anything is traced, in a sentence with the shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.kernels.flash_attention import flash_attention

Q, K = np.zeros((2, 8, 4, 16), np.float32), np.zeros((2, 8, 2, 16), np.float32)


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ((Q[0], K, K), {}, r"but q has 3 axes \(q float32\[8, 4, 16\]"),
        ((Q, K[:1], K), {}, r"same batch \(q float32\[2, 8, 4, 16\], k float32\[1, 8, 2, 16\]"),
        ((Q, K, K[:, :3]), {}, "same number of keys"),
        ((Q, K, K[:, :, :1]), {}, "k and v must have the same number of heads"),
        ((Q[:, :, :3], K, K), {}, "q's 3 heads must be a multiple of k's 2"),
        ((Q, K[..., :8], K), {}, "the same head_dim"),
        ((Q, K[:, :0], K[:, :0]), {}, "there are no keys"),
        ((Q, K.astype(np.float16), K), {}, "the same dtype"),
        ((Q.astype(np.int32), K.astype(np.int32), K.astype(np.int32)), {}, "float64, not int32"),
        ((Q, K, K), {"sinks": np.zeros(2, np.float32)}, r"\[heads\] = \[4\], not float32\[2\]"),
        ((Q, K, K), {"scale": 0.0}, r"scale = 0\.0 must be a positive number"),
        ((Q, K, K), {"soft_cap": -1.0}, r"soft_cap = -1\.0 must be a positive number"),
        ((Q, K, K), {"soft_cap": 1e-45}, r"soft_cap = 1e-45 must be a positive number \(1e-30 to 1e\+30\)"),
        ((Q, K, K), {"scale": 1e39}, r"scale = 1e\+39 must be a positive number"),
        ((Q, K, K), {"window": 0}, "window = 0 must be a positive int"),
        ((Q, K, K), {"dropout_rate": 1.0}, r"dropout_rate = 1\.0 must be at least 0 and below 1"),
        ((Q, K, K), {"segment_ids": np.ones((2, 7), int)}, r"\[batch, query\] = \[2, 8\], not int64\[2, 7\]"),
        ((Q, K, K), {"segment_ids": np.ones((2, 8))}, "segment_ids must be integers"),
        ((Q[:, :4], K, K), {"segment_ids": np.ones((2, 8), int)}, "for as many queries as keys"),
        ((Q, K, K), {"query_segment_ids": np.ones((2, 8), int)}, "query_segment_ids came alone"),
        (
            (Q, K, K),
            {"segment_ids": np.ones((2, 8), int), "key_segment_ids": np.ones((2, 8), int)},
            "but not both",
        ),
        ((Q, K, K), {"query_offset": np.zeros(3, int)}, r"query_offset must be .* \[batch\] = \[2\]"),
        ((Q, K, K), {"key_offset": 1.5}, r"key_offset = 1\.5 must be an int"),
        (
            (Q, K, K),
            {"implementation": "fast"},
            r"no implementation 'fast' \(choose from auto, cudnn, pallas_triton, mosaic, xla",
        ),
    ],
)
def test_it_is_refused(arrays, options, sentence):
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(lambda *x: flash_attention(*x, **options), *arrays)


def test_what_cudnn_cannot_do_is_named_with_those_that_can():
    half = [x.astype(jnp.bfloat16) for x in (Q, K, K)]
    with pytest.raises(InputError, match=r"'cudnn' cannot do platform cpu .*; xla and reference can"):
        flash_attention(*half, implementation="cudnn")
    segments = np.ones((2, 8), int)
    with pytest.raises(InputError, match=r"cannot do platform cpu .*, segments, soft-cap; xla"):
        flash_attention(*half, segment_ids=segments, soft_cap=1.0, implementation="cudnn")
