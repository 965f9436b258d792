import math

import pytest
from pydantic import BaseModel, ValidationError

from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.training.config import LossConfig, OptimizerConfig, ScheduleConfig, StepConfig


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(
    ("config", "field"),
    [
        (LossConfig, "cycle"),
        (OptimizerConfig, "momentum_decay"),
        (ScheduleConfig, "epochs"),
        (StepConfig, "clip_norm"),
        (GeneratorConfig, "nonlocal_gain"),
    ],
)
def test_numbers_are_finite(config: type[BaseModel], field: str, value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        config.model_validate({field: value})
