"""Who may call the service, and how much: keys, OIDC tokens, scopes, quotas and the audit log.

::

    Authorization: Bearer … ┐          ┌─ sgm_… ─► KeyStore.find    (segmamba_keys)
    X-API-Key: …            ├─► Guard ─┤                                    ├─► Principal ─► route
                            ┘          └─ JWT ───► OidcVerifier.verify (issuer's keys)
                              │ 401 no valid credential · 403 scope missing · 429 too often
                              └─► AuditLog

`setup.make_guard` builds it from the settings, `guard.require` is what routes ask for. `modes`
decides what a caller has to show, `quota` what one may have at a time, `headers` what a browser is
told.
"""
