//! The rules for routes' statements. SQLite asks the authorizer while it compiles a statement and the triggers that it fires.
//!
//! SQLite compiles a running statement again when the tables have changed. So the rules apply while route statements are
//! prepared and while they run. Catchment's own statements are not restricted.
//! <https://sqlite.org/c3ref/set_authorizer.html>

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::store::schema::{begins, is_ours};
use crate::store::sqlite_error::Violation;

const MIGRATE: &str = "change tables, indexes and triggers in a migration";

/// The authorizer of one connection.
#[derive(Clone, Debug)]
pub(in crate::store) struct Authorizer(Arc<State>);

#[derive(Debug, Default)]
struct State {
    on: AtomicBool,
    /// A statement writes rows of a table.
    writes: AtomicBool,
    /// What was refused; the detail continues "it".
    violation: Mutex<Option<Violation>>,
    /// Tables that rows are added to, while [`Authorizer::inserts`] runs.
    inserts: Mutex<Option<Vec<String>>>,
}

impl Authorizer {
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let state = Arc::new(State::default());
        let asked = Arc::clone(&state);
        connection.authorizer(Some(move |context: AuthContext<'_>| asked.judge(&context)))?;
        Ok(Self(state))
    }

    /// Applies the rules during the call.
    pub(in crate::store) fn enforce<T>(&self, run: impl FnOnce() -> T) -> T {
        /// Also when the call panics, or the connection would refuse catchment's own statements.
        struct Off<'a>(&'a AtomicBool);
        impl Drop for Off<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        self.0.on.store(true, Ordering::Relaxed);
        let _off = Off(&self.0.on);
        run()
    }

    /// Whether a statement compiled since the last call of this writes rows of a table.
    pub(in crate::store) fn take_writes(&self) -> bool {
        self.0.writes.swap(false, Ordering::Relaxed)
    }

    /// The tables that the statement compiled in the call adds rows to, its triggers included.
    pub(in crate::store) fn inserts(&self, compile: impl FnOnce()) -> Vec<String> {
        *self.0.inserts.lock() = Some(Vec::new());
        self.enforce(compile);
        self.0.inserts.lock().take().unwrap_or_default()
    }

    /// What was refused since the last call of this.
    pub(in crate::store) fn take_violation(&self) -> Option<Violation> {
        self.0.violation.lock().take()
    }
}

impl State {
    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.on.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if let (AuthAction::Insert { table_name }, Some(inserts)) = (&context.action, &mut *self.inserts.lock()) {
            inserts.push((*table_name).to_owned());
        }
        match rule(&context.action) {
            Ok(writes) => {
                if writes {
                    self.writes.store(true, Ordering::Relaxed);
                }
                Authorization::Allow
            }
            Err(mut violation) => {
                if let Some(name) = context.accessor {
                    violation.detail = format!("{}, in trigger or view {name}", violation.detail);
                }
                self.violation.lock().get_or_insert(violation);
                Authorization::Deny
            }
        }
    }
}

/// Whether an action writes rows, or why it is refused.
fn rule(action: &AuthAction<'_>) -> Result<bool, Violation> {
    let refuse = |detail: String| Err(Violation::new(detail));
    match *action {
        // Reading a PRAGMA's table runs the PRAGMA.
        AuthAction::Read { table_name, .. } if begins(table_name, "pragma_") => refuse(format!("reads {table_name}")),
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Function { .. }
        | AuthAction::Read { .. }
        // Full-text indexes read these when they are written.
        | AuthAction::Pragma { pragma_name: "data_version" | "page_size", pragma_value: None } => Ok(false),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => {
            if is_ours(table_name) {
                refuse(format!("writes {table_name}, which is catchment's own"))
            } else if begins(table_name, "sqlite_") {
                Err(Violation::with_remedy(format!("writes {table_name}"), MIGRATE))
            } else {
                Ok(true)
            }
        }
        AuthAction::Pragma { pragma_name, .. } => refuse(format!("runs PRAGMA {pragma_name}")),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            refuse("begins or ends a transaction: an event's statements are part of its batch's transaction".into())
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            refuse("attaches or detaches a database: there is one database".into())
        }
        _ => Err(Violation::with_remedy("does something else than write rows", MIGRATE)),
    }
}
