"""Which attempt owns a run's folder: of all that train under one name at most one writes."""
