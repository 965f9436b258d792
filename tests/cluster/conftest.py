from object_stores import moto

__all__ = ["moto"]
