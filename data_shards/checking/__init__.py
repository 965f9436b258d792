"""Reading whole shards: `verify` finds what is damaged in a dataset, `index` what is in existing tars."""
