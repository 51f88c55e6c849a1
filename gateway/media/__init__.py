"""Images that requests bring: where they may come from, and what they are once decoded.

    async with loader.images(parts) as images: ...

Nothing here knows of models or templates.
"""
