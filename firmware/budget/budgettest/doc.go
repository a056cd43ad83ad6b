// Package budgettest is a store of budgets in memory, for the tests of what sends images.
//
// It owns what is reserved. Tests make it; no product code does.
package budgettest
