"""A service that speaks what clients already send: `vitlens serve`."""
