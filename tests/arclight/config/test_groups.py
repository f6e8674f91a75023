from __future__ import annotations

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from arclight.config.groups import is_late, late_names, module_group, module_settings, resolve_late
from arclight.errors import InputError

LATE = {
    "net": {
        "num_classes": "${data_info:num_classes}",
        "name": "of_${data_info:num_classes}",
        "sizes": ["${data_info:width}", 3],
    }
}


def test_values_of_the_data_stay_when_a_config_is_composed() -> None:
    config = OmegaConf.create({"a": "${data_info:num_classes}", "b": "${a}"})
    assert OmegaConf.to_container(config, resolve=True) == {"a": "${data_info:num_classes}", "b": "${data_info:num_classes}"}


def test_values_of_the_data_are_read_from_the_first_that_has_them() -> None:
    info, data = SimpleNamespace(num_classes=10), SimpleNamespace(num_classes=7, width=32)
    resolved = {"net": {"num_classes": 10, "name": "of_10", "sizes": [32, 3]}}
    assert resolve_late(LATE, (info, data)) == resolved
    assert list(late_names(LATE)) == ["num_classes", "num_classes", "width"]
    assert is_late("${data_info:x}")
    assert not any(map(is_late, ("x", "a${data_info:x}", 3, None)))


def test_a_value_that_the_data_does_not_have() -> None:
    with pytest.raises(InputError, match=r"net\.sizes\.0=.*the data has no 'width'. Did you mean 'widht'"):
        resolve_late(LATE, (None, SimpleNamespace(num_classes=1, widht=2)))


def test_private_attributes_are_no_values() -> None:
    assert resolve_late("${data_info:__class__}", (SimpleNamespace(),)) == "${data_info:__class__}"


def test_the_module_is_the_model_where_no_module_is_chosen() -> None:
    both = {"module": {"_target_": "m"}, "model": {"_target_": "n"}}
    assert module_group(both) == "module"
    assert module_settings({"model": {"_target_": "n"}}) == {"_target_": "n"}
