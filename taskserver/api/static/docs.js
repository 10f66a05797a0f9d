"use strict";

SwaggerUIBundle({
  dom_id: "#docs",
  url: "openapi.json",
  deepLinking: true,
  docExpansion: "list",
  // The default sends the document's address to another host, to have it checked there.
  validatorUrl: null,
});
