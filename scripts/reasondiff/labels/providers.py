"""Who labels latents and judges labels in this study?"""

from __future__ import annotations

from reasondiff.config import Labels
from reasondiff.labels.questions import Provider


def open_provider(settings: Labels, study: str) -> Provider:
    """Who the config names; a key in the environment decides nothing. `study` is who pays for Claude.

    Raises:
        LabelError: `anthropic` without a key, or with a store that cannot be used.
    """
    if settings.provider == "offline":
        from reasondiff.labels.offline import OfflineProvider

        return OfflineProvider()
    from reasondiff.labels.claude import ClaudeProvider, require_key

    require_key()
    return ClaudeProvider(settings, study)
