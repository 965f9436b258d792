from object_stores import moto, rclone

__all__ = ["moto", "rclone"]
