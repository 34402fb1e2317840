/*
 * Tandem: all public headers at once. From the floor below up: errors, log lines, slices,
 * globs, msgpack, incarnations; models, the reactor; sync, the harness.
 */
#ifndef TANDEM_SYNC_TANDEM_H
#define TANDEM_SYNC_TANDEM_H

#include "store/bytes.h"
#include "store/error.h"
#include "store/glob.h"
#include "store/incarnation.h"
#include "store/log.h"
#include "store/msgpack.h"

#include "reactor/event.h"
#include "reactor/json.h"
#include "reactor/model.h"
#include "reactor/model_check.h"
#include "reactor/reactor.h"

#include "sync/backup.h"
#include "sync/harness.h"
#include "sync/simulator.h"
#include "sync/sync.h"

#endif
