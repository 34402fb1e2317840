/*
 * What is shared with a peer, between the flags of `peer add` and `peer set`, a request, and the
 * library. In a request it is {"direction", "all", "collections", "documents", "scopes", "branches"}:
 * what is missing stays as it is, and "all" empties the lists that are not given.
 */
#ifndef TANDEM_TOOLS_SHARE_H
#define TANDEM_TOOLS_SHARE_H

#include "tools/tandem/access.h"
#include "tools/tandem/request.h"

/* Does a command line say anything of what is shared? */
bool cli_share_is_given(const cli_call *call);
/* What it says, as a request has it; NULL and reported: something that cannot be. */
json_t *cli_share_given(const cli_call *call);

/* Share what a request says with a peer that there is; nothing is changed if it says nothing. */
tandem_err cli_share_set(cli_request *request, const json_t *object, tandem_sync *sync,
                         const char *name);
/* Add a peer that shares what the request says. */
tandem_err cli_share_add(cli_request *request, const json_t *object, tandem_sync *sync,
                         const char *name, const char *url);

/* The lists of a share, each null if it is everything. */
json_t *cli_json_share(const tandem_share *share);

#endif
