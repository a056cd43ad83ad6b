// Command uibuild builds the dashboard's page: it bundles dashboard/ui/src with
// the packages in dashboard/ui/vendor into dashboard/ui/dist, which is committed
// and embedded in the muster binary. It needs no Node and no network, and the
// same input gives the same bytes. Run it from the tools directory:
//
//	go run ./uibuild         build dist
//	go run ./uibuild -check  fail when dist or vendor.lock is stale, or a budget is broken
//	go run ./uibuild -lock   write vendor.lock anew after a change of vendor
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	root := flag.String("ui", "../dashboard/ui", "the folder with src, vendor and dist")
	check := flag.Bool("check", false, "write nothing; fail when dist or vendor.lock is not what src and vendor give")
	lock := flag.Bool("lock", false, "write vendor.lock from what is in vendor")
	flag.Parse()
	if err := run(*root, *check, *lock); err != nil {
		fmt.Fprintln(os.Stderr, "uibuild:", err)
		os.Exit(1)
	}
}

func run(root string, check, lock bool) error {
	if lock {
		return writeLock(root)
	}
	if err := checkLock(root); err != nil {
		return err
	}
	page, first, err := bundle(root)
	if err != nil {
		return err
	}
	sizes, err := checkBudget(page, first)
	if err != nil {
		return err
	}
	if check {
		err = compareDist(root, page)
	} else {
		err = writeDist(root, page)
	}
	if err != nil {
		return err
	}
	fmt.Println(sizes)
	return nil
}
