"""The search space: dimensions and sampling in `space`, its validity for a run in `checks`."""
