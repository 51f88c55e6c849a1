"""The pages' files, read by gateway.web.assets."""
