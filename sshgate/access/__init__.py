"""Who may come in (``identity``, ``authorized_keys``), what they may have (``policy``), how many (``limits``)."""
