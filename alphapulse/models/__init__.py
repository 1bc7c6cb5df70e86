"""The models, and how three of them become one decision."""
