"""What the operator writes: models, loading, merging, and messages about mistakes."""

import os

# pydantic otherwise asks every package of the environment for plugins, to run them in this tool of
# root's; and that takes longer than to read a policy.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
