"""Access control: who may log in (``identity``, ``authorized_keys``), what each login gets (``policy``), and how
many connections and sandboxes there may be (``limits``, ``connections``)."""
