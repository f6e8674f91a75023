"""Encoders from nothing but memory."""

from __future__ import annotations

import torch

from arclight.text.random_encoder import encoder_from_config, small_bert, without_pooler
from tests.project.models.test_bert_tagger import text


def test_a_small_bert_drops_what_is_said() -> None:
    made = small_bert(text(), num_hidden_layers=1, hidden_size=8, num_attention_heads=2, dropout=0.2, attention_dropout=None)
    assert (made.config.hidden_dropout_prob, made.config.attention_probs_dropout_prob) == (0.2, 0.2)
    made = small_bert(text(), num_hidden_layers=1, hidden_size=8, num_attention_heads=2, dropout=0.2, attention_dropout=0.0)
    assert (made.config.hidden_dropout_prob, made.config.attention_probs_dropout_prob) == (0.2, 0.0)


def test_a_saved_config_gives_the_same_net_without_a_pooler() -> None:
    made = small_bert(text(), num_hidden_layers=1, hidden_size=8, num_attention_heads=2, dropout=0.0, attention_dropout=None)
    again = encoder_from_config(made.config.to_dict())
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in made.state_dict().items()
    }
    assert without_pooler(made.config) == {"add_pooling_layer": False}
    assert next(again.parameters()).dtype == torch.float32
