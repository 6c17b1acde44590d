"""A native function in Python: the mean and the median of a list of numbers."""

import json
import statistics

import wit_world
from componentize_py_types import Err


class WitWorld(wit_world.WitWorld):
    def call(self, input: str) -> str:
        try:
            numbers = json.loads(input)
            return json.dumps({"mean": statistics.fmean(numbers), "median": statistics.median(numbers)})
        except (ValueError, TypeError) as e:
            # The function's own error; any other exception is a trap.
            raise Err(json.dumps(f"give a list of numbers: {e}"))
