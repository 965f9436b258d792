"""Translating folders of any size on a cluster: what is missing, by Ray Data's actors, into another folder."""
