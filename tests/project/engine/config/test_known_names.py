"""What conf/ offers, and keys that nothing takes."""

from __future__ import annotations

from arclight.config.known_names import groups_there, keys_at_top, options_of, unknown_keys


def test_what_conf_offers() -> None:
    assert {"data", "experiment", "logger"} <= set(groups_there())
    assert not {"hydra", "local"} & set(groups_there())
    assert {"seed", "resume", "name"} <= set(keys_at_top())
    assert {"adam", "muon"} <= set(options_of("optimizer"))


def test_what_something_is_built_from_is_found_at_any_depth() -> None:
    settings = {"data": {"_target_": "x.Y", "augment": {"_target_": "arclight.images.augment.Nothing", "corp": 1}}, "seed": 0}
    assert unknown_keys(settings) == []  # no source, no verdict
    settings["data"]["augment"]["_target_"] = "torch.optim.Adam"  # type: ignore[index]
    assert str(unknown_keys(settings)[0]).startswith("data.augment.corp: Adam takes no 'corp'.")
