"""The user encoders: padding, causality, and a slow reference of the LiGR block."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.config import Config
from recsys.errors import ConfigError
from recsys.heads.config import FusionConfig
from recsys.models.encoder import make_encoder
from recsys.models.ligr import LigrConfig, LigrEncoder
from recsys.models.sasrec import SasRecConfig

CONFIGS: dict[str, SasRecConfig | LigrConfig] = {
    "sasrec": SasRecConfig(dim=8, heads=2, max_length=10),
    "sasrec unscaled": SasRecConfig(dim=8, max_length=10, scale_items=False),
    "ligr": LigrConfig(dim=8, heads=2, blocks=2, max_length=10),
    "ligr scaled and normed": LigrConfig(dim=8, scale_items=True, final_norm=True, max_length=10),
    "pre-LayerNorm GELU": LigrConfig(dim=8, gated=False, activation="gelu", max_length=10),
}


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    return make_encoder(CONFIGS[request.param]).eval()


def test_more_padding_changes_nothing(encoder: torch.nn.Module) -> None:
    vectors = torch.randn(3, 4, 8)
    alone = encoder(vectors, torch.ones(3, 4, dtype=torch.bool))
    # what stands at padding must not matter either
    padded, valid = torch.cat([torch.full((3, 5, 8), 7.0), vectors], 1), torch.arange(9).expand(3, 9) >= 5
    torch.testing.assert_close(encoder(padded, valid)[:, 5:], alone, atol=1e-5, rtol=1e-5)


def test_a_state_reads_nothing_that_comes_later(encoder: torch.nn.Module) -> None:
    vectors, valid = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    changed = vectors.clone()
    changed[:, 4:] += 1.0
    before, after = encoder(vectors, valid), encoder(changed, valid)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-3


def test_a_state_reads_what_came_before(encoder: torch.nn.Module) -> None:
    vectors, valid = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    changed = vectors.clone()
    changed[:, 0] += torch.randn(8)  # a constant would be lost in a LayerNorm
    assert (encoder(vectors, valid)[:, -1] - encoder(changed, valid)[:, -1]).abs().max() > 1e-4


def test_the_last_place_alone_is_that_of_the_whole_pass(encoder: torch.nn.Module) -> None:
    vectors, lengths = torch.randn(4, 6, 8), torch.tensor([6, 1, 3, 5])
    valid = torch.arange(6).expand(4, 6) >= 6 - lengths[:, None]
    torch.testing.assert_close(encoder.last(vectors, valid), encoder(vectors, valid)[:, -1], atol=1e-5, rtol=1e-5)
    whole = torch.ones(4, 6, dtype=torch.bool)
    torch.testing.assert_close(encoder.last(vectors, whole), encoder(vectors, whole)[:, -1], atol=1e-5, rtol=1e-5)


def test_ligr_equals_its_formula_position_by_position() -> None:
    """x = x + s(W_a x) * attention(LN x); x = x + s(W_f x) * SwiGLU(LN x), one head, written out without a batch."""
    torch.manual_seed(0)
    encoder = LigrEncoder(LigrConfig(dim=4, max_length=5, widening=2)).double().eval()
    block = encoder.blocks[0]
    rows = torch.randn(3, 4, dtype=torch.float64)
    x = rows + encoder.positions.weight[-3:]
    normed = block.attention_norm(x)
    q = block.attention.query(normed)
    k, v = block.attention.key_value(normed).split(4, dim=1)
    branch = torch.stack([torch.softmax(q[t] @ k[: t + 1].T / 2.0, dim=0) @ v[: t + 1] for t in range(3)])
    x = x + torch.sigmoid(block.attention_gate(x)) * block.attention.out(branch)
    normed = block.feed_norm(x)
    x = x + torch.sigmoid(block.feed_gate(x)) * block.narrow(F.silu(block.widen(normed)) * block.second(normed))
    torch.testing.assert_close(encoder(rows[None], torch.ones(1, 3, dtype=torch.bool))[0], x)


def test_scale_and_final_norm_wrap_the_blocks() -> None:
    torch.manual_seed(0)
    encoder = LigrEncoder(LigrConfig(dim=4, max_length=5, scale_items=True, final_norm=True)).eval()
    plain = LigrEncoder(LigrConfig(dim=4, max_length=5)).eval()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    rows, valid = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(encoder(rows, valid), F.layer_norm(plain(2.0 * rows, valid), (4,)))


def test_dropout_is_off_in_evaluation_and_on_in_training(encoder: torch.nn.Module) -> None:
    vectors, valid = torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(encoder(vectors, valid), encoder(vectors, valid))
    encoder.train()
    assert not torch.equal(encoder(vectors, valid), encoder(vectors, valid))


def test_a_config_without_kind_is_sasrec_and_kind_chooses() -> None:
    assert isinstance(FusionConfig.parse({"encoder": {"dim": 16}}).encoder, SasRecConfig)
    assert isinstance(FusionConfig.parse({"encoder": {"kind": "ligr", "dim": 16}}).encoder, LigrConfig)
    with pytest.raises(ConfigError, match="ligr"):
        FusionConfig.parse({"encoder": {"kind": "no-such-encoder"}})
    with pytest.raises(ConfigError, match="widening"):
        FusionConfig.parse({"encoder": {"kind": "ligr", "widenning": 2}})


@pytest.mark.parametrize("config", [SasRecConfig, LigrConfig])
def test_heads_must_divide_the_width(config: type[Config]) -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        config.parse({"dim": 10, "heads": 4})


def test_positions_count_from_the_end() -> None:
    """The last item of a short and of a long history has the same position."""
    encoder = make_encoder(SasRecConfig(dim=4, max_length=6, dropout=0.0)).eval()
    one, two = torch.randn(1, 1, 4), torch.randn(1, 2, 4)
    valid = torch.ones(1, 1, dtype=torch.bool)
    padded = torch.cat([torch.zeros(1, 5, 4), one], 1)
    state = encoder(padded, torch.arange(6)[None] == 5)[:, -1]
    torch.testing.assert_close(encoder(one, valid)[:, -1], state)
    assert np.isfinite(encoder(two, torch.ones(1, 2, dtype=torch.bool)).detach().numpy()).all()
