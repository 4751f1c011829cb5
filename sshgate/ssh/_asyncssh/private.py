"""The private names of asyncssh that this package uses."""

# The version that this package was written for and is tested with.
WORKS = "2.24.1"

# By module and class: what is read, set, called or overridden here.
USED = {
    ("channel", "SSHChannel"): """
        _accept_data _close_event _close_send _conn _deliver_data _init_recv_window _open_waiter _packet_handlers
        _process_close _recv_buf _recv_paused _recv_state _recv_window _send_buf _send_buf_len _send_chan
        _send_pktsize _send_request _send_state _send_window _session
    """,
    ("channel", "SSHForwardChannel"): "_open_forward",
    ("channel", "SSHServerChannel"): """
        _process_auth_agent_req_at_openssh_dot_com_request _process_env_request _process_exec_request
        _process_pty_req_request _process_x11_req_request _session_started _start_session
    """,
    ("connection", "SSHServerConnection"): """
        _all_server_host_keys _allow_pty _auth _auth_complete _auth_final _cert_options _channels _cleanup
        _client_kexinit _client_version _compressor _deferred_packets _enc_alg_cs _enc_alg_sc _enc_algs
        _extensions_to_send _finish_recv_packet _finish_userauth _force_close _global_request_queue _ignore_first_kex
        _inpbuf _kex_algs _kex_complete _kexinit_sent _key_options _loop _make_global_request _max_pktsize
        _max_recv_pktlen _next_recv_blocksize _next_recv_encryption _next_recv_macsize _owner _packet_handlers _pktlen
        _process_cancel_streamlocal_forward_at_openssh_dot_com_global_request
        _process_cancel_tcpip_forward_global_request _process_channel_open
        _process_direct_streamlocal_at_openssh_dot_com_open _process_direct_tcpip_open _process_global_request
        _process_hostkeys_prove_00_at_openssh_dot_com_global_request _process_kexinit
        _process_streamlocal_forward_at_openssh_dot_com_global_request _process_tcpip_forward_global_request
        _recv_encryption _recv_handler _recv_version _rekey_bytes _rekey_bytes_sent _rekey_seconds _rekey_time
        _report_global_response _reset_keepalive_timer _send _send_disconnect _send_encryption _send_kexinit _send_seq
        _server_host_key _server_host_key_algs _server_host_keys _server_kexinit _service_next_global_request
        _session_id _transport _username _validate_client_public_key _validate_openssh_certificate _window
    """,
    ("encryption", "GCMEncryption"): "_cipher",
    ("crypto.cipher", "GCMCipher"): "_iv _key",
    ("public_key", "SSHOpenSSHCertificateV01"): """
        _cert_type _decode _decode_bool _user_option_decoders _valid_after _valid_before
    """,
}
