"""One rank among others: the process group, the clock, signs of life, requests to leave off."""
